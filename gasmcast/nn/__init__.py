"""What is learned: graph attention within a stream, bottleneck cross-attention between streams."""

from gasmcast.nn.cross_attention import (
    BottleneckCrossAttention,
    CrossAttentionWeights,
    MultiHeadAttention,
)
from gasmcast.nn.gasm_cast import GASMCAST, GASMCASTAttention
from gasmcast.nn.graph_attention import (
    GraphAttentionLayer,
    MotionGraphAttention,
    SemanticGraphAttention,
)

__all__ = [
    "GASMCAST",
    "BottleneckCrossAttention",
    "CrossAttentionWeights",
    "GASMCASTAttention",
    "GraphAttentionLayer",
    "MotionGraphAttention",
    "MultiHeadAttention",
    "SemanticGraphAttention",
]
