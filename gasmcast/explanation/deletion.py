"""What becomes of a class as tokens, or what they show, are taken away in a given order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gasmcast.explanation.inspection import ClipInspection, Stream, check_same_model, evaluating

if TYPE_CHECKING:
    from gasmcast.model import TemporalCrossAttentionModel

# Passes at a time: tokens are small, clips that go through the extractors are not.
_TOKENS_AT_ONCE = 64
_CLIPS_AT_ONCE = 8


class DeletionCurve(NamedTuple):
    r"""A class while more and more is taken away; R points, for one order or O of them.

    Attributes:
        removed: How many tokens are gone at each point, [R], from 0 to N - 1.
        logits: Of the class, [R] or [O, R], float32 on the CPU.
        probabilities: Likewise.
    """

    removed: Tensor
    logits: Tensor
    probabilities: Tensor

    @property
    def area(self) -> Tensor:
        r"""Area under the probabilities, [] or [O], the way from 0 to N - 1 taken as 1.

        So it is the mean probability along the way. The smaller, the sooner the order takes away
        what the model needs.
        """
        return torch.trapezoid(self.probabilities, self.removed.float()) / self.removed[-1]


@torch.no_grad()
def deletion_curve(
    model: TemporalCrossAttentionModel,
    inspection: ClipInspection,
    order: Tensor,
    *,
    stream: Stream = "spatial",
    label: int | str | None = None,
    steps: int = 16,
) -> DeletionCurve:
    r"""A class as the tokens of one stream are removed, the first of ``order`` first.

    .. math::
        p(r) = \mathrm{softmax}_k\, f\big(X \setminus \{x_{o_1}, \dots, x_{o_r}\}\big)

    The tokens are masked, not zeroed: graphs are built without them, nobody attends to them, and
    the means that are classified are those of the tokens left. So the class can become more
    probable, as what is left weighs more in the mean. One token always stays. The extractors do
    not run again: their features are those of the inspection. They have seen the whole clip, and a
    token that stays may tell of one that is gone; :func:`pixel_deletion_curve` has no such way
    around.

    The opposite test, insertion, is deletion in the order ``order.flip(-1)`` read from its end.

    Args:
        model: The model that was inspected.
        inspection: What :func:`inspect_clip` returned for the clip.
        order: The tokens, [N], or several orders of them at once, [O, N].
        stream: ``"spatial"``: the tokens are patches; ``"temporal"``: segments.
        label: The class, by number or name; None: the most probable one of the inspection.
        steps: Steps from all tokens to one, about equally long; at most N - 1 are made.

    Raises:
        ValueError: An order that is not each token once, another model than was inspected, a
            stream or class that is not there, fewer than two tokens or one step.

    Source: Samek et al., `Evaluating the Visualization of What a Deep Neural Network Has Learned
    <https://arxiv.org/abs/1509.06321>`_ (TNNLS 2017); Petsiuk, Das, Saenko, `RISE
    <https://arxiv.org/abs/1806.07421>`_ (BMVC 2018).

    Example:
        >>> import torch
        >>> from gasmcast import TemporalCrossAttentionModel
        >>> from gasmcast.explanation import deletion_curve, inspect_clip
        >>> model = TemporalCrossAttentionModel(
        ...     num_classes=4, num_heads=4, bottleneck_dim=32,
        ...     semantic_extractor=dict(
        ...         model_name="vit_tiny_patch16_224", pretrained=False, image_size=64,
        ...         num_frames=2, trainable=True,
        ...         model_kwargs=dict(patch_size=16, embed_dim=48, depth=1, num_heads=3),
        ...     ),
        ...     motion_extractor=dict(width=0.125, image_size=64, trainable=True),
        ... )
        >>> seen = inspect_clip(model, torch.rand(16, 3, 64, 64))
        >>> attended = seen.cross_attention("action", "motion_to_semantic").mean(dim=0)
        >>> curve = deletion_curve(model, seen, attended.argsort(descending=True), steps=5)
        >>> curve.removed
        tensor([ 0,  3,  6,  9, 12, 15])
        >>> random = torch.stack([torch.randperm(16) for _ in range(20)])
        >>> deletion_curve(model, seen, random).area.shape
        torch.Size([20])
    """
    weight = model.classifier.weight
    streams = [graph.x.to(weight) for graph in (inspection.spatial, inspection.temporal)]
    mask = "semantic_mask" if inspection.graph(stream) is inspection.spatial else "motion_mask"

    def logits_of(kept: Tensor) -> Tensor:
        features = [tokens.expand(len(kept), -1, -1) for tokens in streams]
        return model.forward_features(*features, **{mask: kept.to(weight.device)})

    ranks = _ranks(order, inspection.graph(stream).num_nodes)
    return _curve(model, inspection, logits_of, ranks, label, steps, _TOKENS_AT_ONCE)


@torch.no_grad()
def pixel_deletion_curve(
    model: TemporalCrossAttentionModel,
    inspection: ClipInspection,
    order: Tensor,
    *,
    label: int | str | None = None,
    steps: int = 16,
) -> DeletionCurve:
    """A class as the pixels of the patches are painted over, the first of ``order`` first.

    The place of a patch takes the clip's mean colour in every frame, before the extractors run.
    So both streams lose what was there, and no attention can have carried it elsewhere. What is
    left is a clip unlike those that the model was trained on: it measures the model on such clips
    too.

    Args:
        model: As for :func:`deletion_curve`, and so are the other arguments and the result.
        inspection: Likewise.
        order: Likewise; the tokens are the patches.
        label: Likewise.
        steps: Likewise. The whole model runs on a clip for each.

    Raises:
        ValueError: As for :func:`deletion_curve`.

    Source: As for :func:`deletion_curve`.
    """
    frames = inspection.frames.to(model.classifier.weight.device)
    colour = frames.mean(dim=(0, 2, 3), keepdim=True)

    def logits_of(kept: Tensor) -> Tensor:
        shown = kept.to(frames).view(-1, 1, *inspection.grid_size)
        shown = F.interpolate(shown, frames.shape[-2:], mode="nearest-exact").bool()
        return model(torch.where(shown.unsqueeze(1), frames, colour))

    ranks = _ranks(order, inspection.spatial.num_nodes)
    return _curve(model, inspection, logits_of, ranks, label, steps, _CLIPS_AT_ONCE)


def _ranks(order: Tensor, num_tokens: int) -> Tensor:
    """When each token is removed, [N] or [O, N]."""
    if num_tokens < 2:
        raise ValueError(f"deletion needs at least 2 tokens, got {num_tokens}")
    if not isinstance(order, Tensor) or order.dim() not in (1, 2) or not len(order):
        came = list(order.shape) if isinstance(order, Tensor) else type(order).__name__
        raise ValueError(f"order must be a tensor [{num_tokens}] or [O, {num_tokens}], got {came}")
    order = order.detach().cpu()
    every = torch.arange(num_tokens)
    for one in order.view(-1, order.size(-1)):
        if len(one) != num_tokens or not torch.equal(one.sort().values, every.to(one)):
            raise ValueError(
                f"order must hold each token from 0 to {num_tokens - 1} once, got {_some(one)}"
            )
    return order.argsort(dim=-1)


def _some(order: Tensor, most: int = 8) -> str:
    """The first numbers of an order, and how many it has."""
    shown = ", ".join(map(str, order[:most].tolist()))
    return f"[{shown}, ... {len(order)} in all]" if len(order) > most else f"[{shown}]"


def _curve(
    model: TemporalCrossAttentionModel,
    inspection: ClipInspection,
    logits_of: Callable[[Tensor], Tensor],
    ranks: Tensor,
    label: int | str | None,
    steps: int,
    at_once: int,
) -> DeletionCurve:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    classes = model.classifier.out_features
    if classes != len(inspection.logits):
        raise ValueError(
            f"the inspection is of a model with {len(inspection.logits)} classes, got a model "
            f"with {classes}"
        )
    label = inspection.label(label)
    removed = torch.linspace(0, ranks.size(-1) - 1, steps + 1).round().long().unique()
    kept = ranks.unsqueeze(-2) >= removed.unsqueeze(-1)  # [R, N] or [O, R, N]
    with evaluating(model):
        parts = [logits_of(part).float().cpu() for part in kept.flatten(0, -2).split(at_once)]
    logits = torch.cat(parts)
    check_same_model(logits[0], inspection.logits)  # there nothing is removed yet
    logits = logits.unflatten(0, kept.shape[:-1])
    return DeletionCurve(removed, logits[..., label], logits.softmax(dim=-1)[..., label])
