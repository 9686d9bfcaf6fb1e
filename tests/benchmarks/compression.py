"""How much of its input a bottleneck keeps: what a linear map can make of it again."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from benchmarks.page import table
from gasmcast.nn import BottleneckCrossAttention

ALPHAS = 10.0 ** np.arange(-4, 5)
SEEDS = range(3)
Encoder = Callable[[Tensor], Tensor]


def run(layers: list[BottleneckCrossAttention], inputs: list[list[Tensor]]) -> str:
    """A table of the share of variance that comes back, on clips the linear maps did not see.

    Args:
        layers: Of a trained model.
        inputs: Semantic and motion tokens that each layer reads, [B, N, D] in clips of any order.
    """
    rows = []
    for number, (layer, streams) in enumerate(zip(layers, inputs, strict=True), start=1):
        for name, stream, tokens in zip(
            ("semantic", "motion"), ("sem", "mot"), streams, strict=True
        ):
            width = getattr(layer, f"{stream}_compress").out_features
            means = {
                kind: np.mean([recovered(encode, tokens) for encode in encoders])
                for kind, encoders in _encoders(layer, stream, tokens).items()
            }
            rows.append(
                [f"layer {number}, {name}: {tokens.size(-1)} to {width}"]
                + [f"{100 * mean:.1f} %" for mean in means.values()]
            )
    header = (
        "",
        "trained, with norm",
        "fresh, with norm",
        "random, with norm",
        "random",
        "best linear (PCA)",
    )
    return table(header, rows)


def _encoders(
    layer: BottleneckCrossAttention, stream: str, tokens: Tensor
) -> dict[str, list[Encoder]]:
    """Ways into the bottleneck; those that begin at random several times."""
    compress, norm = getattr(layer, f"{stream}_compress"), getattr(layer, f"{stream}_norm")
    width = compress.out_features
    train, _ = halves(tokens)
    pca = PCA(width).fit(train.flatten(0, 1).numpy())
    fresh, random, normed = [], [], []
    for seed in SEEDS:
        torch.manual_seed(seed)
        linear = nn.Linear(compress.in_features, width)
        projection = torch.randn(compress.in_features, width) / width**0.5
        plain_norm = nn.LayerNorm(width)
        fresh.append(lambda x, linear=linear, n=plain_norm: n(linear(x)))
        random.append(lambda x, projection=projection: x @ projection)
        normed.append(lambda x, projection=projection, n=plain_norm: n(x @ projection))
    return {
        "trained": [lambda x: norm(compress(x))],
        "fresh": fresh,
        "normed": normed,
        "random": random,
        "pca": [lambda x: torch.from_numpy(pca.transform(x.numpy()))],
    }


@torch.no_grad()
def recovered(encode: Encoder, tokens: Tensor) -> float:
    """Share of the variance of held-out tokens that a linear map of their code explains (R^2).

    The map is a ridge regression on the tokens of the first half of the clips.
    """
    train, test = halves(tokens)
    codes = [encode(part.flatten(0, 1)).double().numpy() for part in (train, test)]
    targets = [part.flatten(0, 1).double().numpy() for part in (train, test)]
    predicted = RidgeCV(ALPHAS).fit(codes[0], targets[0]).predict(codes[1])
    residual = ((targets[1] - predicted) ** 2).sum()
    return float(1 - residual / ((targets[1] - targets[1].mean(axis=0)) ** 2).sum())


def halves(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Clips to fit on and clips to test on, every other one."""
    return tokens[::2], tokens[1::2]
