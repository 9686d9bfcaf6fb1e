"""A linear probe: what a linear layer can tell from frozen tokens."""

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

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
        labels: [N].
        held_out_tokens: [M, D].
        held_out_labels: [M].

    Raises:
        ValueError: Fewer than two classes to tell apart.
    """
    layer = LogisticRegression(
        C=1 / (PENALTY * len(tokens)), class_weight="balanced", max_iter=1000
    )
    probe = make_pipeline(StandardScaler(), layer).fit(tokens.numpy(), labels.numpy())
    found = probe.predict(held_out_tokens.numpy())
    return 100 * balanced_accuracy_score(held_out_labels.numpy(), found)
