"""What is compared: GASM-CAST, with one thing at a time left out or replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers import LayerScale
from torch import Tensor, nn
from torch_geometric.data import Batch

from gasmcast import TemporalCrossAttentionModel, build_graph
from gasmcast.graphs import Pairs, Quantile, Rule, TargetDegree
from gasmcast.nn.graph_attention import INITIAL_SCALE
from gasmcast.nn.position_encoding import FourierPositionEncoding
from interaction_study.features import Features

HEAD = {"num_heads": 4, "bottleneck_dim": 64, "dropout": 0.1, "drop_path": 0.1}
"""What all variants have in common, where they have it at all."""


@dataclass(frozen=True)
class Variant:
    """One way to build and feed the model.

    Attributes:
        group: What it is about; variants of a group are shown together.
        text: What it is, in the table.
        expected: What it was expected to do, as written down before its first run.
        head: Arguments of the model that differ from :data:`HEAD`.
        change: Changes the built model where no argument does.
        streams: What it gets as its semantic and as its motion stream.
        one_frame: Whether it sees one frame of each clip only.
    """

    group: str
    text: str
    expected: str
    head: tuple[tuple[str, Any], ...] = ()
    change: Callable[[TemporalCrossAttentionModel], None] | None = None
    streams: tuple[str, str] = ("semantic", "motion")
    one_frame: bool = False

    def feed(self, features: Features) -> Features:
        """The features as this variant gets them."""
        semantic, motion = (getattr(features, name) for name in self.streams)
        return features.with_streams(semantic, motion)

    def build(self, features: Features, seed: int) -> TemporalCrossAttentionModel:
        """The untrained model for features as :meth:`feed` gives them."""
        torch.manual_seed(seed)
        model = TemporalCrossAttentionModel(
            len(features.classes),
            StoredStream(features.semantic),
            StoredStream(features.motion),
            class_names=features.classes,
            **{**HEAD, **dict(self.head)},
        )
        if self.change is not None:
            self.change(model)
        return model


class StoredStream(nn.Module):
    """Stands where an extractor does, for features that are stored already."""

    image_size = 0

    def __init__(self, tokens: Tensor):
        super().__init__()
        _, count, self.feature_dim = tokens.shape
        side = int(count**0.5)
        self.grid_size = (side, side) if side * side == count else (1, count)


class NoGraph(nn.Module):
    """Leaves the features as they are."""

    def forward(self, features: Tensor, *_: Any, **__: Any) -> Tensor:
        """The features."""
        return features


class SelfAttention(nn.Module):
    """What graph attention is without a graph: every token attends to every other.

    Pre-norm and residual like :class:`gasmcast.nn.GraphAttentionLayer`, with its dropout and its
    LayerScale. Where a token is, the position encoding of the fusion layers tells.
    """

    def __init__(self, dim: int, position_dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.position = FourierPositionEncoding(position_dim, dim)
        self.attention = nn.MultiheadAttention(
            dim, HEAD["num_heads"], dropout=HEAD["dropout"], batch_first=True
        )
        self.scale = LayerScale(dim, INITIAL_SCALE)

    def forward(self, features: Tensor, positions: Tensor, *_: Any, **__: Any) -> Tensor:
        """Refine [B, N, D]."""
        tokens = self.norm(features) + self.position(positions)
        return features + self.scale(self.attention(tokens, tokens, tokens, need_weights=False)[0])


@dataclass(frozen=True, repr=False)
class SameDegree(Rule):
    """As many sources for each target as it has in another graph, by a random order of the others.

    Attributes:
        degree: Sources of each node, [sum N].
        rank: For each target, the place of each source in its order, [N, N]; itself comes last.
    """

    degree: Tensor
    rank: Tensor

    def holds(self, pairs: Pairs) -> Tensor:
        """Of the random order, the first ones."""
        wanted, _ = pairs.of_nodes(self.degree)
        return self.rank[pairs.rows.start : pairs.rows.stop] < wanted


def without_graphs(
    model: TemporalCrossAttentionModel, names: Sequence[str] = ("semantic_graph", "motion_graph")
) -> None:
    """Streams reach the fusion as they come: both, or the one whose graph is named."""
    for name in names:
        setattr(model.gasm_cast, name, NoGraph())


def with_self_attention(model: TemporalCrossAttentionModel) -> None:
    """GATv2 on the graph replaced by self-attention over all tokens."""
    head = model.gasm_cast
    head.semantic_graph = SelfAttention(model.semantic_extractor.feature_dim, position_dim=2)
    head.motion_graph = SelfAttention(model.motion_extractor.feature_dim, position_dim=1)


def with_random_edges(model: TemporalCrossAttentionModel) -> None:
    """Every node hears of as many others as in its graph, but of random ones, the same ever after.

    They are drawn as the weights are: each seed has its own.
    """
    for graph, extractor in (
        (model.gasm_cast.semantic_graph, model.semantic_extractor),
        (model.gasm_cast.motion_graph, model.motion_extractor),
    ):
        rows, columns = extractor.grid_size
        order = torch.rand(rows * columns, rows * columns).fill_diagonal_(2)
        rank = order.argsort(dim=1).argsort(dim=1)
        graph.build_graph = partial(_random_graph, graph.build_graph, rank)


def _random_graph(
    build: Callable[..., Batch], rank: Tensor, positions: Tensor, **given: Any
) -> Batch:
    edge_index = build(positions, **given, edge_attr=False).edge_index
    degree = edge_index[1].bincount() - 1  # the self-loop stays
    return build_graph(SameDegree(degree, rank), positions, **given)


def without_layer_scale(model: TemporalCrossAttentionModel) -> None:
    """Graph attention adds to the features what it finds, and not a learned share of it."""
    for graph in (model.gasm_cast.semantic_graph, model.gasm_cast.motion_graph):
        del graph.graph_attention.scale
        graph.graph_attention.scale = 1.0


def cross_attention_with_layer_scale(model: TemporalCrossAttentionModel) -> None:
    """No graphs, and cross-attention with what graph attention has."""
    without_graphs(model)
    for layer in model.gasm_cast.fusion_layers:
        for attention in (layer.sem_attention, layer.mot_attention):
            scale = LayerScale(attention.output.out_features, INITIAL_SCALE)
            attention.output = nn.Sequential(attention.output, scale)


def keep_layers(count: int, model: TemporalCrossAttentionModel) -> None:
    """Only the first fusion layers."""
    for name in ("layer2_pattern", "layer3_action")[count - 1 :]:
        delattr(model.gasm_cast, name)


def _edges(text: str, expected: str, threshold: Any) -> Variant:
    return Variant("edges", text, expected, (("similarity_threshold", threshold),))


def _bottleneck(width: int, expected: str) -> Variant:
    return Variant("bottleneck", f"bottleneck {width}", expected, (("bottleneck_dim", width),))


VARIANTS = {
    "gasm_cast": Variant("graphs", "GASM-CAST", "the best"),
    "without_graphs": Variant("graphs", "without graphs", "3 points less", change=without_graphs),
    "spatial_graph": Variant(
        "graphs",
        "spatial graph alone",
        "1 point less",
        change=partial(without_graphs, names=["motion_graph"]),
    ),
    "temporal_graph": Variant(
        "graphs",
        "temporal graph alone",
        "2 points less",
        change=partial(without_graphs, names=["semantic_graph"]),
    ),
    "grid_only": Variant(
        "graphs", "grid only, no similarity", "1 point less", (("similarity_threshold", 2.0),)
    ),
    "fully_connected": Variant(
        "graphs",
        "fully connected graphs",
        "1 point less, slower",
        (("similarity_threshold", -1.0), ("max_similar", None)),
    ),
    "self_attention": Variant(
        "graphs",
        "plain self-attention instead of GATv2",
        "2 points less",
        change=with_self_attention,
    ),
    "random_edges": Variant(
        "graphs", "random edges of the same degree", "2 points less", change=with_random_edges
    ),
    "no_layer_scale": Variant(
        "graphs", "graph attention without LayerScale", "1 point less", change=without_layer_scale
    ),
    "cross_attention": Variant(
        "fusion",
        "simple cross-attention: no graphs, no bottleneck",
        "3 to 5 points less",
        (("fusion", "cross_attention"),),
        without_graphs,
    ),
    "cross_attention_layer_scale": Variant(
        "fusion",
        "simple cross-attention with LayerScale",
        "3 points less",
        (("fusion", "cross_attention"),),
        cross_attention_with_layer_scale,
    ),
    "graphs_cross_attention": Variant(
        "fusion",
        "graphs, then simple cross-attention",
        "the same",
        (("fusion", "cross_attention"),),
    ),
    "late_fusion": Variant(
        "fusion",
        "late fusion without graphs",
        "10 points less",
        (("fusion", "late"),),
        without_graphs,
    ),
    "graphs_late_fusion": Variant(
        "fusion", "graphs, then late fusion", "5 points less", (("fusion", "late"),)
    ),
    "semantic_alone": Variant(
        "streams",
        "semantic stream in both places",
        "far below",
        streams=("semantic", "semantic"),
    ),
    "motion_alone": Variant(
        "streams", "motion stream in both places", "far below", streams=("motion", "motion")
    ),
    "one_frame": Variant("streams", "the middle frame alone", "far below", one_frame=True),
    "one_layer": Variant(
        "layers", "1 fusion layer", "2 points less", change=partial(keep_layers, 1)
    ),
    "two_layers": Variant(
        "layers", "2 fusion layers", "1 point less", change=partial(keep_layers, 2)
    ),
    "bottleneck_128": _bottleneck(128, "the same"),
    "bottleneck_256": _bottleneck(256, "the same, slower"),
    "bottleneck_512": _bottleneck(512, "the same, slower"),
    "threshold_0.5": _edges("similarity at least 0.5", "the same", 0.5),
    "threshold_0.9": _edges("similarity at least 0.9", "the same", 0.9),
    "quantile_0.9": _edges("the most similar tenth of all pairs", "the same", Quantile(0.9)),
    "degree_8": _edges("8 similar neighbours on average", "1 point more", TargetDegree(8)),
}
"""All variants by the name that the file of runs has for them."""

REFERENCE = "gasm_cast"
"""The variant that all others are compared with."""
