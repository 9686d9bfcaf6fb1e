"""What is learned: graph attention within a stream, cross-attention between streams."""

from gasmcast.nn.cross_attention import (
    BottleneckCrossAttention,
    CrossAttention,
    CrossAttentionWeights,
)
from gasmcast.nn.gasm_cast import GASMCAST, GASMCASTAttention
from gasmcast.nn.gatv2 import FusedGATv2Conv
from gasmcast.nn.gatv2_kernels.backend import force_gatv2_backend, gatv2_backend
from gasmcast.nn.graph_attention import (
    GraphAttentionLayer,
    MotionGraphAttention,
    SemanticGraphAttention,
)
from gasmcast.nn.multi_head_attention import MultiHeadAttention
from gasmcast.nn.pooled_fusion import MergedMaps, fuse_and_pool, merge_maps

__all__ = [
    "GASMCAST",
    "BottleneckCrossAttention",
    "CrossAttention",
    "CrossAttentionWeights",
    "FusedGATv2Conv",
    "GASMCASTAttention",
    "GraphAttentionLayer",
    "MergedMaps",
    "MotionGraphAttention",
    "MultiHeadAttention",
    "SemanticGraphAttention",
    "force_gatv2_backend",
    "fuse_and_pool",
    "gatv2_backend",
    "merge_maps",
]
