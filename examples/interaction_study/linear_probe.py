"""A linear probe: what a linear layer can tell from frozen tokens."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy

PENALTY = 1e-2
"""Of the squared weights, half of their sum; the loss is a mean over tokens."""


def linear_probe(
    tokens: Tensor, labels: Tensor, held_out_tokens: Tensor, held_out_labels: Tensor
) -> float:
    """Balanced accuracy of a linear layer on held-out tokens, in percent.

    The layer is multinomial logistic regression in which all classes count the same, on channels
    scaled by the tokens that it learns from. The problem is convex and solved by L-BFGS from zero,
    so no seed and no learning rate have a say.

    Args:
        tokens: [N, D].
        labels: [N], from 0 on.
        held_out_tokens: [M, D].
        held_out_labels: [M], of the same classes.

    Raises:
        ValueError: Fewer than two classes to tell apart, or a held-out one that was not learned.
    """
    classes = labels.unique()
    if len(classes) < 2 or not torch.isin(held_out_labels, classes).all():
        raise ValueError(
            "a probe needs two classes or more, and held-out tokens of these, got "
            f"{classes.tolist()} and held-out {held_out_labels.unique().tolist()}"
        )
    num_classes = int(classes.max()) + 1
    mean, deviation = tokens.mean(dim=0), tokens.std(dim=0).clamp_min(1e-6)
    tokens, held_out_tokens = ((x - mean) / deviation for x in (tokens, held_out_tokens))
    count = labels.bincount(minlength=num_classes).clamp_min(1)
    importance = len(labels) / (len(classes) * count)
    weight = torch.zeros(num_classes, tokens.size(1), requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        error = F.cross_entropy(F.linear(tokens, weight, bias), labels, importance)
        value = error + PENALTY / 2 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    with torch.no_grad():
        found = F.linear(held_out_tokens, weight, bias).argmax(dim=1)
    # The mean over the classes that are there.
    of_each = multiclass_accuracy(found, held_out_labels, num_classes, average="none")
    return 100 * of_each[held_out_labels.unique()].mean().item()
