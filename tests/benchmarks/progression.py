"""What each fusion layer adds: a trained model with layers cut, and how attention moves on."""

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.page import table
from gasmcast.nn import CrossAttentionWeights
from gasmcast.nn.pooled_fusion import fuse_and_pool

NAMES = ("basic", "pattern", "action")


@torch.no_grad()
def run_cut(
    layers: list[nn.Module],
    classifier: nn.Linear,
    semantic: Tensor,
    motion: Tensor,
    places: tuple[Tensor, Tensor],
    labels: Tensor,
) -> str:
    """A table of what is right with every subset of the layers, without training again."""
    rows, losses, answers = [], None, None
    for size in range(len(layers), -1, -1):
        for kept in combinations(range(len(layers)), size):
            means = fuse_and_pool([layers[i] for i in kept], semantic, motion, *places)[:2]
            logits = classifier(torch.cat(means, dim=1))
            right = int((logits.argmax(dim=1) == labels).sum())
            low, high = wilson(right, len(labels))
            name = " + ".join(NAMES[i] for i in kept) or "none"
            accuracy = f"{right / len(labels):.1%} ({low:.1%} to {high:.1%})"
            loss, answer = F.cross_entropy(logits, labels, reduction="none"), logits.argmax(dim=1)
            if losses is None:  # all layers come first
                losses, answers = loss, answer
            # Clip by clip: intervals of the shares are those of the clips, which are the same.
            more, changed = loss - losses, int((answer != answers).sum())
            error = 1.96 * float(more.std()) / len(labels) ** 0.5
            difference = f"{more.mean():+.4f} ± {error:.4f}" if losses is not loss else ""
            rows.append([name, accuracy, f"{loss.mean():.3f}", difference, changed])
    header = ("layers kept", "top-1 (95 %)", "cross-entropy", "more (95 %)", "answers changed")
    return table(header, rows)


def run_drift(weights: list[CrossAttentionWeights]) -> str:
    """A table of how far apart the attentions of the layers are."""
    rows = []
    for direction in CrossAttentionWeights._fields:
        maps = [getattr(of_layer, direction) for of_layer in weights]
        distances = [
            total_variation(maps[i], maps[j]).mean() for i, j in combinations(range(len(maps)), 2)
        ]
        # A yardstick: the same layer on a clip of another class. Clips come class by class, so the
        # next one would nearly always be of the same.
        half = len(maps[0]) // 2
        clips = [total_variation(of_layer, of_layer.roll(half, dims=0)).mean() for of_layer in maps]
        evenness = [entropy(of_layer).mean() for of_layer in maps]
        rows.append(
            [direction.replace("_", " ")]
            + [f"{value:.2f}" for value in (*distances, *clips)]
            + [f"{value:.0%}" for value in evenness]
        )
    pairs = [f"{NAMES[i]}, {NAMES[j]}" for i, j in combinations(range(len(weights)), 2)]
    header = (
        "",
        *pairs,
        *(f"{name}, other clip" for name in NAMES),
        *(f"entropy, {name}" for name in NAMES),
    )
    return table(header, rows)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the sum of absolute differences over the last dimension, 0 to 1."""
    return (p - q).abs().sum(dim=-1) / 2


def entropy(p: Tensor) -> Tensor:
    """Entropy over the last dimension as a share of that of a uniform distribution."""
    return torch.special.entr(p).sum(dim=-1) / torch.tensor(float(p.size(-1))).log()


def wilson(right: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    z, share = 1.96, right / number
    middle = share + z**2 / (2 * number)
    spread = z * ((share * (1 - share) + z**2 / (4 * number)) / number) ** 0.5
    scale = 1 + z**2 / number
    return max((middle - spread) / scale, 0.0), min((middle + spread) / scale, 1.0)
