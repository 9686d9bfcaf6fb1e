"""The part of a model that works on one graph, as PyG's explainers take it."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from gasmcast.explanation.inspection import ClipInspection, Stream, check_same_model

if TYPE_CHECKING:
    from gasmcast.model import TemporalCrossAttentionModel


class GraphPart(nn.Module):
    r"""What comes after the features of one clip, as a function of the graph of one stream.

    .. math::
        \mathrm{logits} = W \Big[ \tfrac{1}{P} \sum_p s'_p \,\Big\Vert\,
        \tfrac{1}{S} \sum_i m'_i \Big] + b, \qquad
        (s', m') = \mathrm{fuse}\big(\mathrm{attend}(x, \mathrm{edges}),\; m\big)

    with the tokens m of the other stream, refined by its own graph, held as they are; for the
    temporal graph with the streams exchanged. On the graph of the inspection it gives the logits of
    the model.

    The one layer that passes messages is the graph attention of the stream, so
    :class:`torch_geometric.explain.Explainer` and its algorithms (``AttentionExplainer``,
    ``GNNExplainer``, ``CaptumExplainer``) work on it, one after the other. It holds a frozen copy,
    on the CPU, in ``eval()`` mode: whatever an explainer trains, and also where one is interrupted,
    the model stays as it was and gets no gradients. (One that is interrupted leaves its masks in
    the part: make a new part then.)

    The graph is an input: features that an explainer masks do not change the edges or their
    ``edge_attr``.

    Args:
        model: The model.
        inspection: What :func:`inspect_clip` found in the clip with this model.
        stream: ``"spatial"``: the graph of the patches; ``"temporal"``: that of the segments.

    Attributes:
        graph: The graph of that stream in the inspection.

    Shapes:
        - **x:** [N, D], features of the nodes; ``graph.x``
        - **edge_index:** [2, E]; ``graph.edge_index``
        - **edge_attr:** [E, F], displacement, distance, similarity; ``graph.edge_attr``
        - **output:** logits [1, K]

    Raises:
        ValueError: There is no such stream; the inspection is of another model; another number of
            nodes or width than the graph has.

    Example:
        >>> import torch
        >>> from torch_geometric.explain import AttentionExplainer, Explainer
        >>> from gasmcast import TemporalCrossAttentionModel
        >>> from gasmcast.explanation import GraphPart, inspect_clip
        >>> model = TemporalCrossAttentionModel(
        ...     num_classes=4, num_heads=4, bottleneck_dim=32,
        ...     semantic_extractor=dict(
        ...         model_name="vit_tiny_patch16_224", pretrained=False, image_size=64,
        ...         num_frames=2,
        ...         model_kwargs=dict(patch_size=16, embed_dim=48, depth=1, num_heads=3),
        ...     ),
        ...     motion_extractor=dict(width=0.125, image_size=64, allow_random_weights=True),
        ... )
        >>> inspection = inspect_clip(model, torch.rand(16, 3, 64, 64))
        >>> part = GraphPart(model, inspection, "spatial")
        >>> explainer = Explainer(
        ...     part,
        ...     AttentionExplainer(reduce="mean"),
        ...     explanation_type="model",
        ...     edge_mask_type="object",
        ...     model_config=dict(
        ...         mode="multiclass_classification", task_level="graph", return_type="raw"
        ...     ),
        ... )
        >>> x, edge_index, edge_attr = part.graph.x, part.graph.edge_index, part.graph.edge_attr
        >>> explanation = explainer(x, edge_index, edge_attr=edge_attr)
        >>> torch.allclose(explanation.edge_mask, inspection.graph_attention("spatial"), atol=1e-6)
        True
    """

    def __init__(
        self,
        model: TemporalCrossAttentionModel,
        inspection: ClipInspection,
        stream: Stream = "spatial",
    ):
        super().__init__()
        self.graph = inspection.graph(stream)
        self.stream = stream
        _check_widths(model, inspection)
        gasm_cast = model.gasm_cast
        attentions = gasm_cast.semantic_graph, gasm_cast.motion_graph
        other = inspection.temporal
        if stream == "temporal":
            attentions, other = attentions[::-1], inspection.spatial
        mine, others = (_frozen_copy(attention.graph_attention) for attention in attentions)
        self.graph_attention = mine
        self.fusion_layers = _frozen_copy(nn.ModuleList(gasm_cast.fusion_layers))
        self.classifier = _frozen_copy(model.classifier)
        self.register_buffer("positions", inspection.spatial.pos, persistent=False)
        self.register_buffer("times", inspection.temporal.pos, persistent=False)
        self.eval()  # of itself too: explainers put back the mode that they find
        with torch.no_grad():
            # Refined once and for all: an explainer would mask a second layer that passes messages.
            refined = others(other.x, other.edge_index, other.edge_attr)
            self.register_buffer("other", refined.unsqueeze(0), persistent=False)
            logits = self(self.graph.x, self.graph.edge_index, self.graph.edge_attr)[0]
        check_same_model(logits, inspection.logits)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Logits of the clip with this graph; see the class for shapes."""
        if x.shape != self.graph.x.shape:
            raise ValueError(
                f"x must be {list(self.graph.x.shape)}, the features of the {self.stream} graph, "
                f"got {list(x.shape)}"
            )
        mine = self.graph_attention(x, edge_index, edge_attr).unsqueeze(0)
        spatial = self.stream == "spatial"
        semantic, motion = (mine, self.other) if spatial else (self.other, mine)
        for layer in self.fusion_layers:
            semantic, motion = layer(
                semantic, motion, semantic_positions=self.positions, motion_positions=self.times
            )
        return self.classifier(torch.cat([semantic.mean(dim=1), motion.mean(dim=1)], dim=1))

    def train(self, mode: bool = True) -> Self:
        """As for any module. Explainers call it before their work and after it."""
        # GNNExplainer leaves the name of its mask registered as a parameter. PyG would wrap the
        # mask of the next explainer into a new parameter, and Captum found no way back to its own.
        layer = self.graph_attention.attention
        if "_edge_mask" in layer._parameters and layer._edge_mask is None:
            del layer._edge_mask
            layer._edge_mask = None
        return super().train(mode)


def _frozen_copy(module: nn.Module) -> nn.Module:
    return deepcopy(module).float().cpu().eval().requires_grad_(False)


def _check_widths(model: TemporalCrossAttentionModel, inspection: ClipInspection) -> None:
    came = inspection.spatial.x.size(1), inspection.temporal.x.size(1), len(inspection.logits)
    extractors = model.semantic_extractor, model.motion_extractor
    expected = *(extractor.feature_dim for extractor in extractors), model.classifier.out_features
    if came != expected:
        raise ValueError(
            "the inspection is of another model: expected patches, segments and logits "
            f"{', '.join(map(str, expected))} wide, got {', '.join(map(str, came))}"
        )
