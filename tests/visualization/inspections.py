"""Inspections of small clips and of one as large as the default model's."""

import torch
from torch_geometric.data import Data

from gasmcast.explanation import ClipInspection, inspect_clip
from gasmcast.graphs import EdgeRule
from gasmcast.nn.cross_attention import CrossAttentionWeights
from small import IMAGE_SIZE, small_model


def seen_by_small_model(*, clips=1, **options):
    """Random weights, 16 patches, 8 segments, 4 heads, fusion that is no identity."""
    torch.manual_seed(0)
    model = small_model(**options)
    for layer in model.gasm_cast.fusion_layers:
        torch.nn.init.normal_(layer.sem_expand.weight, std=0.5)
        torch.nn.init.normal_(layer.mot_expand.weight, std=0.5)
    for stream in (model.gasm_cast.semantic_graph, model.gasm_cast.motion_graph):
        for parameter in stream.parameters():  # attention far from even
            parameter.data.mul_(3)
    return [inspect_clip(model, torch.rand(16, 3, IMAGE_SIZE, IMAGE_SIZE)) for _ in range(clips)]


def full_size():
    """The default sizes, a node with as many edges as the model's cap allows, frames of noise."""
    return made_up(
        grid=(14, 14), segments=8, heads=8, classes=174, frames=(16, 224, 224), degree=25
    )


def made_up(*, grid, segments, heads, classes, frames, degree):
    """Random numbers of these sizes; the segments are all tied to each other."""
    torch.manual_seed(0)
    patches = grid[0] * grid[1]
    similarity = torch.rand(patches, patches).fill_diagonal_(-1)
    sources = torch.cat([torch.arange(patches)[:, None], similarity.topk(degree).indices], dim=1)
    targets = torch.arange(patches)[:, None].expand_as(sources)
    positions = torch.cartesian_prod(*map(torch.arange, grid)).float()
    spatial = _graph(torch.stack([sources.flatten(), targets.flatten()]), positions, heads)
    everything = torch.cartesian_prod(torch.arange(segments), torch.arange(segments)).t()
    temporal = _graph(everything, torch.arange(float(segments))[:, None], heads)
    layer = CrossAttentionWeights(
        semantic_to_motion=torch.rand(heads, patches, segments).softmax(dim=-1),
        motion_to_semantic=torch.rand(heads, segments, patches).softmax(dim=-1),
    )
    evidence = torch.randn(classes, patches), torch.randn(classes, segments)
    bias = torch.randn(classes)
    count, height, width = frames
    return ClipInspection(
        frames=torch.rand(count, 3, height, width),
        grid_size=grid,
        class_names=tuple(f"class {k}" for k in range(classes)),
        logits=evidence[0].sum(dim=1) + evidence[1].sum(dim=1) + bias,
        spatial=spatial,
        temporal=temporal,
        layers=dict.fromkeys(("basic", "pattern", "action"), layer),
        patch_evidence=evidence[0],
        segment_evidence=evidence[1],
        bias=bias,
    )


def _graph(edge_index, positions, heads):
    num_edges = edge_index.size(1)
    width = positions.size(1) + 2
    return Data(
        edge_index=edge_index,
        edge_rule=torch.full((num_edges,), int(EdgeRule.SIMILAR), dtype=torch.uint8),
        edge_attr=torch.rand(num_edges, width),
        attention=torch.rand(num_edges, heads),
        pos=positions,
        num_nodes=len(positions),
    )
