"""What a variant costs: parameters, operations, and the time of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from gasmcast import TemporalCrossAttentionModel
from gasmcast.nn import FusedGATv2Conv
from interaction_study.features import Features, load, scale_of
from interaction_study.variants import REFERENCE, VARIANTS


def measure_cost(
    names: list[str], output: Path, *, rounds: int = 30, batch_size: int = 32
) -> dict[str, dict[str, float]]:
    """Parameters, operations and time of variants, on training clips drawn at random.

    A step is forward, backward and AdamW. The variants are timed in turn, round after round, each
    round beginning with another of them: what else the machine does meets all alike, so ratios
    hold where times do not. The first round warms up and does not count.

    Args:
        names: Of the variants.
        output: Folder of the features: ``stores``, ``changed``.
        rounds: How often each is timed.
        batch_size: Clips of a step.

    Returns:
        By name: ``parameters`` that are trained; ``flops`` of a forward pass in ``eval()`` for one
        clip, the mean over the clips of a step, as :func:`count_flops` counts; ``step_ratio``, the
        median over the rounds of the time of a step relative to GASM-CAST's; ``step_milliseconds``,
        the median time of a step.
    """
    batches = {
        one_frame: _batch(output / ("changed/one_frame" if one_frame else "stores"), batch_size)
        for one_frame in {VARIANTS[name].one_frame for name in (REFERENCE, *names)}
    }
    found, steps = {}, {}
    for name in dict.fromkeys((REFERENCE, *names)):
        variant = VARIANTS[name]
        clips = variant.feed(batches[variant.one_frame])
        model = variant.build(clips, seed=0)
        found[name] = {
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "flops": round(count_flops(model, clips) / len(clips)),
        }
        steps[name] = _training_step(model.train(), clips)
    seconds = _in_turn(steps, rounds)
    for name, times in seconds.items():
        pairs = zip(times, seconds[REFERENCE], strict=True)
        found[name]["step_ratio"] = round(median(mine / theirs for mine, theirs in pairs), 3)
        found[name]["step_milliseconds"] = round(1000 * median(times), 2)
    return {name: found[name] for name in names}


def count_flops(model: TemporalCrossAttentionModel, clips: Features) -> int:
    """Operations of a forward pass, two for each multiplication and addition.

    Counted are all matrix products: those of linear layers, of attention, and of the similarities
    that graphs are built from. Torch sees these as they run; it does not see into the kernel of
    GATv2. Its products are added for each edge and channel: two operations for the score, two for
    the weighted sum, two for each edge feature that is projected. Not counted, as is usual: what
    works element by element (norms, softmax, LeakyReLU), and sorting.
    """
    along_edges = 0

    def add_edges(layer: FusedGATv2Conv, given: tuple[Tensor, ...], _: Any) -> None:
        nonlocal along_edges
        _, edge_index, edge_attr = given
        channels = layer.heads * layer.out_channels
        along_edges += edge_index.size(1) * channels * (4 + 2 * edge_attr.size(1))

    hooks = [
        layer.register_forward_hook(add_edges)
        for layer in model.modules()
        if isinstance(layer, FusedGATv2Conv)
    ]
    # Of attention on the CPU torch has no count of its own.
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: _attention_flops})
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a kernel that torch does not see into
    try:
        with torch.no_grad(), counter:
            model.eval().forward_features(clips.semantic, clips.motion)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() + along_edges


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_, **__) -> int:
    return sdpa_flop_count(query, key, value)


def _batch(folder: Path, batch_size: int) -> Features:
    """Clips of the training split, drawn at random once for all variants."""
    features = scale_of(folder / "train")(load(folder / "train"))
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    return features.take(drawn[:batch_size])


def _training_step(model: nn.Module, clips: Features) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        logits = model.forward_features(clips.semantic, clips.motion)
        F.cross_entropy(logits, clips.labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _in_turn(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            calls[name]()
            if number > 0:
                seconds[name].append(time.perf_counter() - began)
    return seconds
