"""One pass of a model over one clip, with all there is to see of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gasmcast.explanation.clip import sample_clip
from gasmcast.graphs.check import check_index
from gasmcast.video import VideoClip

if TYPE_CHECKING:
    from gasmcast.model import TemporalCrossAttentionModel
    from gasmcast.nn.cross_attention import CrossAttentionWeights

LAYERS = ("basic", "pattern", "action")
"""The fusion layers, in their order."""

DIRECTIONS = ("motion_to_semantic", "semantic_to_motion")
"""Who takes from whom in cross-attention: segments from patches, patches from segments."""

Direction = Literal["motion_to_semantic", "semantic_to_motion"]
Stream = Literal["spatial", "temporal"]


class ClassEvidence(NamedTuple):
    r"""What each token adds to a class's logit.

    Attributes:
        patches: [P].
        segments: [S].
        bias: What the classifier adds by itself. All three together sum to the logit.
    """

    patches: Tensor
    segments: Tensor
    bias: float


@dataclass(frozen=True, eq=False, repr=False)
class ClipInspection:
    r"""What a model saw in one clip.

    All tensors are on the CPU, without gradient, and its own: nothing changes them later. What is
    computed is float32.

    Attributes:
        frames: The clip, [T, 3, H, W], RGB in [0, 1].
        grid_size: Rows and columns of the patches.
        class_names: Names of the K classes; ``"class 7"`` and so on where the model has none.
        logits: [K], the sum of the evidence. In half precision they differ from those of the
            model's own classifier by its rounding.
        spatial: The graph of the patches, with ``attention`` [E, H] and the features ``x`` [P, D].
        temporal: The graph of the segments, likewise.
        layers: Cross-attention of each fusion layer, without the dimension of the batch:
            ``semantic_to_motion`` [H, P, S] and ``motion_to_semantic`` [H, S, P]. Empty in late
            fusion.
        patch_evidence: [K, P], see :meth:`evidence`.
        segment_evidence: [K, S], likewise.
        bias: [K], of the classifier.
        patch_frames: Which of the frames the patches come from; None where the semantic extractor
            does not say (``frame_indices``).
        pts_seconds: When each frame is shown, float64 [T]; None where that is not known.
        name: The file, as the caller named it; None for a tensor.
    """

    frames: Tensor
    grid_size: tuple[int, int]
    class_names: tuple[str, ...]
    logits: Tensor
    spatial: Data
    temporal: Data
    layers: dict[str, CrossAttentionWeights]
    patch_evidence: Tensor
    segment_evidence: Tensor
    bias: Tensor
    patch_frames: tuple[int, ...] | None = None
    pts_seconds: Tensor | None = None
    name: str | None = None

    def __repr__(self) -> str:
        label, probability = self.top(1)[0]
        return (
            f"ClipInspection({self.name or 'clip'}: {self.class_names[label]!r} {probability:.0%}, "
            f"{self.spatial.num_nodes} patches, {self.temporal.num_nodes} segments, layers: "
            f"{', '.join(self.layers) or 'none'})"
        )

    @property
    def probabilities(self) -> Tensor:
        """[K], summing to 1."""
        return self.logits.softmax(dim=0)

    @property
    def frame_index(self) -> int:
        """The frame to draw patches over: the middle one of those that they come from."""
        frames = self.patch_frames or range(len(self.frames))
        return frames[len(frames) // 2]

    @property
    def num_heads(self) -> int:
        """Heads H of graph and cross-attention."""
        return self.spatial.attention.size(1)

    def top(self, k: int = 5) -> list[tuple[int, float]]:
        """The most probable classes with their probabilities, at most ``k``.

        Raises:
            ValueError: ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        values, labels = self.probabilities.topk(min(k, len(self.logits)))
        return list(zip(labels.tolist(), values.tolist(), strict=True))

    def label(self, name: int | str | None = None) -> int:
        """The class of this name or number; None: the most probable.

        Raises:
            ValueError: There is no such class.
        """
        if name is None:
            return int(self.logits.argmax())
        return find_class(self.class_names, name)

    def graph(self, stream: Stream) -> Data:
        """``"spatial"`` or ``"temporal"``.

        Raises:
            ValueError: Neither of the two.
        """
        if stream not in ("spatial", "temporal"):
            raise ValueError(f'stream must be "spatial" or "temporal", got {stream!r}')
        return self.spatial if stream == "spatial" else self.temporal

    def graph_attention(self, stream: Stream, head: int | None = None) -> Tensor:
        """Attention [E] on the edges of a graph, in their order; self-loops are among them.

        It sums to 1 over the edges that enter a node.

        Args:
            stream: ``"spatial"`` or ``"temporal"``.
            head: Which head, from 0; None: the mean over heads.

        Raises:
            ValueError: There is no such graph or head.
        """
        attention = self.graph(stream).attention
        return (
            attention.mean(dim=1)
            if head is None
            else attention[:, check_head(head, self.num_heads)]
        )

    def cross_attention(self, layer: str, direction: Direction, head: int | None = None) -> Tensor:
        """Attention of one fusion layer in one direction; each row sums to 1.

        Args:
            layer: ``"basic"``, ``"pattern"`` or ``"action"``.
            direction: ``"motion_to_semantic"``: what each segment takes from each patch, [S, P].
                ``"semantic_to_motion"``: what each patch takes from each segment, [P, S].
            head: Which head, from 0; None: the mean over heads.

        Raises:
            ValueError: There is no such layer, direction or head.
        """
        if layer not in self.layers:
            has = ", ".join(self.layers) or 'none, it was made with fusion="late"'
            raise ValueError(f"the model has no fusion layer {layer!r}; it has {has}")
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
        weights = getattr(self.layers[layer], direction)
        return weights.mean(dim=0) if head is None else weights[check_head(head, self.num_heads)]

    def evidence(
        self, label: int | str | None = None, against: int | str | None = None
    ) -> ClassEvidence:
        r"""What each patch and each segment adds to the logit of a class.

        .. math::
            \mathrm{logit}_k = \sum_p \underbrace{\tfrac{1}{P}\, w_k^{s\top} s'_p}_{\text{patch } p}
            + \sum_i \underbrace{\tfrac{1}{S}\, w_k^{m\top} m'_i}_{\text{segment } i} + b_k

        with the fused tokens s' and m' and the classifier's weights. As the classifier is linear on
        the means of the tokens, this is the class activation map and also what Grad-CAM gives (its
        weights, the gradients, are w / P and w / S), with the sign kept: negative values speak
        against the class. What a token adds to all classes alike changes no probability;
        ``against`` takes it off.

        The sum is exact, the place is not: by the time of these tokens the extractors' own
        attention, graph attention and fusion have mixed what was there, so a patch speaks also
        with what it took from other patches and from the segments. :func:`pixel_deletion_curve`
        tries what a place is worth.

        Args:
            label: The class, by number or name; None: the most probable.
            against: A second class, whose evidence is taken off: what speaks for ``label`` rather
                than for this one.

        Raises:
            ValueError: There is no such class; both are the same.

        Source: Zhou et al., `Learning Deep Features for Discriminative Localization
        <https://arxiv.org/abs/1512.04150>`_ (CVPR 2016); Selvaraju et al., `Grad-CAM
        <https://arxiv.org/abs/1610.02391>`_ (ICCV 2017), section 3.1 on their equality.
        """
        parts = [self.patch_evidence, self.segment_evidence, self.bias]
        chosen = [part[self.label(label)] for part in parts]
        if against is not None:
            other = self.label(against)
            if other == self.label(label):
                raise ValueError(
                    f"label and against must be two classes, got {self.class_names[other]!r} twice"
                )
            chosen = [mine - part[other] for mine, part in zip(chosen, parts, strict=True)]
        return ClassEvidence(chosen[0], chosen[1], float(chosen[2]))


@torch.no_grad()
def inspect_clip(
    model: TemporalCrossAttentionModel, video: str | PathLike | VideoClip | Tensor
) -> ClipInspection:
    """Run a model over one clip and keep all there is to see.

    The model is run in ``eval()`` mode, so there is no dropout in the attention; every module is
    put back into its mode afterwards.

    Args:
        model: Any :class:`~gasmcast.TemporalCrossAttentionModel`.
        video: See :func:`load_clip`.

    Raises:
        VideoReadError: The file cannot be read.
        ValueError: A tensor of another shape or type, or without frames; a clip of another size
            than the model's, or with values that are not finite or not in [0, 1]; a classifier
            that is not ``nn.Linear``, for which there is no such evidence.
    """
    if not isinstance(model.classifier, nn.Linear):
        raise ValueError(
            f"evidence needs a linear classifier, got {type(model.classifier).__name__}"
        )
    clip = sample_clip(model, video)
    frames = clip.frames.to(next(model.parameters()).device).unsqueeze(0)
    with evaluating(model):
        features = model.semantic_extractor(frames), model.motion_extractor(frames)
        *tokens, maps = model.fuse_features(*features, return_attention=True)
        patches, segments, bias = _evidence(model.classifier, tokens)
    spatial, temporal = (
        _plain_graph(batch[0]) for batch in (maps.semantic_graph, maps.motion_graph)
    )
    rows, columns = model.semantic_extractor.grid_size
    return ClipInspection(
        frames=_plain(clip.frames).clone(),  # may be the caller's, who may write to them
        grid_size=(rows, columns),
        class_names=class_names_of(model),
        logits=patches.sum(dim=1) + segments.sum(dim=1) + bias,
        spatial=spatial,
        temporal=temporal,
        layers={
            name: type(weights)(*(_plain(weight[0]) for weight in weights))
            for name in LAYERS
            if (weights := getattr(maps, name)) is not None
        },
        patch_evidence=patches,
        segment_evidence=segments,
        bias=bias,
        patch_frames=_patch_frames(model.semantic_extractor, len(clip.frames)),
        pts_seconds=clip.pts_seconds,
        name=clip.name,
    )


def _patch_frames(extractor: nn.Module, num_frames: int) -> tuple[int, ...] | None:
    if not hasattr(extractor, "frame_indices"):
        return None  # of somebody's own
    return tuple(extractor.frame_indices(num_frames))


def class_names_of(model: TemporalCrossAttentionModel) -> tuple[str, ...]:
    """Names of the K classes; ``"class 7"`` and so on where the model has none."""
    names = model.class_names or [f"class {k}" for k in range(model.classifier.out_features)]
    return tuple(names)


def find_class(class_names: tuple[str, ...], name: int | str) -> int:
    """The class of this name or number.

    Raises:
        ValueError: There is no such class.
    """
    if isinstance(name, str):
        if name not in class_names:
            raise ValueError(f"the model has no class {name!r}: {_some(class_names)}")
        return class_names.index(name)
    return check_index(name, len(class_names), "label must be a name or")


def check_head(head: int, num_heads: int) -> int:
    """The head, if there is such a one.

    Raises:
        ValueError: There is not.
    """
    return check_index(head, num_heads, "head must be None or")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``eval()`` mode within a ``with`` block; then each module as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _evidence(classifier: nn.Linear, tokens: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    widths = [stream.size(-1) for stream in tokens]
    with torch.autocast("cpu", enabled=False):  # it would round the evidence
        shares = [
            _plain(weight) @ _plain(stream[0]).t() / stream.size(1)
            for weight, stream in zip(classifier.weight.split(widths, dim=1), tokens, strict=True)
        ]
    bias = classifier.bias
    if bias is None:
        return shares[0], shares[1], torch.zeros(classifier.out_features)
    return shares[0], shares[1], _plain(bias).clone()  # the model may train on


def check_same_model(here: Tensor, there: Tensor) -> None:
    """Whether logits [K] of a model are those of an inspection, up to half precision.

    Raises:
        ValueError: They are not.
    """
    # Half precision moves logits by less than this, other weights by more.
    if float((here - there).abs().max()) > 0.05 * max(1.0, float(there.abs().max())):
        most = int((here - there).abs().argmax())
        raise ValueError(
            f"the inspection is of another model: there the logit of class {most} is "
            f"{there[most]:.3g}, here {here[most]:.3g}"
        )


def _plain_graph(graph: Data) -> Data:
    return graph.clone().apply(
        lambda value: _plain(value) if value.is_floating_point() else value.cpu()
    )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


def _some(names: tuple[str, ...], most: int = 8) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return f"expected one of {shown}" + (
        f" or {len(names) - most} more" if len(names) > most else ""
    )
