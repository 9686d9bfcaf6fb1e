"""What is measured on a part of the data, from the probabilities [N, K] of its clips."""

from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error


def measures(
    probabilities: Tensor, labels: Tensor, opposite: Tensor | None = None
) -> dict[str, float]:
    """Accuracy, calibration, and how many clips are predicted as the opposite of what they are.

    Args:
        probabilities: [N, K].
        labels: [N].
        opposite: The opposite of each class, [K]; None where classes have none.

    Returns:
        In percent: ``top1``; ``opposite``, the clips predicted as the opposite of their class,
        where there are opposites; ``ece``, the expected calibration error over 15 bins of equal
        width (Guo et al., `On Calibration of Modern Neural Networks <https://arxiv.org/abs/1706.04599>`_,
        ICML 2017).
    """
    found = probabilities.argmax(dim=1)
    error = multiclass_calibration_error(probabilities, labels, probabilities.size(1), n_bins=15)
    measured = {"top1": 100 * (found == labels).float().mean().item(), "ece": 100 * error.item()}
    if opposite is not None:
        measured["opposite"] = 100 * (found == opposite[labels]).float().mean().item()
    return measured
