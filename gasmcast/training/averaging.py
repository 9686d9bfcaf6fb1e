"""A moving average of the weights, which often recognises better than the last ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    r"""The exponential moving average of named weights.

    After step t, counted from 0, with weights :math:`w_t`:

    .. math:: a_0 = w_0, \qquad
        a_t = d_t \, a_{t-1} + (1 - d_t) \, w_t, \qquad
        d_t = \min\left(d, \frac{1 + t}{10 + t}\right)

    The smaller decay at the start lets a short run forget its random initial weights. What is no
    floating point number, such as a count of batches, is not averaged but taken over.

    Args:
        decay: The decay d, from 0 (the last weights) to below 1.

    Raises:
        ValueError: A decay out of its range.
    """

    def __init__(self, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.steps = 0
        self.averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after a step."""
        if not self.averages:
            self.averages = {name: weight.clone() for name, weight in weights.items()}
        else:
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            self.averages = {name: self.averages[name].to(w.device) for name, w in weights.items()}
            floating = [name for name, weight in weights.items() if weight.is_floating_point()]
            get_ema_multi_avg_fn(decay)(
                [self.averages[name] for name in floating],
                [weights[name] for name in floating],
                self.steps,
            )
            for name in weights.keys() - set(floating):
                self.averages[name].copy_(weights[name])
        self.steps += 1

    @torch.no_grad()
    def swap(self, weights: Mapping[str, Tensor]) -> None:
        """Exchange weights and averages in place; nothing happens before the first update."""
        for name, average in self.averages.items():
            weight = weights[name]
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.steps, self.averages = state["steps"], dict(state["averages"])
