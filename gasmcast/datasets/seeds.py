"""Seeds for random choices that depend on nothing but a few numbers."""

import numpy as np


def derive_seed(*numbers: int) -> int:
    """One 64-bit seed of several numbers, such as (seed, epoch, index).

    The same numbers in the same order give the same seed on every machine; numbers that differ give
    unrelated ones. Whoever draws from a generator with that seed draws the same in every process,
    and does not mind what else was drawn before.

    Args:
        numbers: Whole numbers, at least 0.

    Returns:
        0 to 2^64 - 1, for ``torch.Generator.manual_seed``.

    Raises:
        ValueError: A number below 0.

    Example:
        >>> derive_seed(0, 3, 7) == derive_seed(0, 3, 7)
        True
        >>> derive_seed(0, 3, 7) == derive_seed(0, 7, 3)
        False
    """
    if any(number < 0 for number in numbers):
        raise ValueError(f"seeds are made of numbers of at least 0, got {numbers}")
    # How many there are is one of them: SeedSequence takes (1, 2) and (1, 2, 0) for the same.
    state = np.random.SeedSequence([len(numbers), *numbers]).generate_state(1, np.uint64)
    return int(state[0])
