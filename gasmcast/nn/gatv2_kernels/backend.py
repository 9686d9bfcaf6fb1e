"""Which kernel computes the messages of GATv2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

from gasmcast.nn.gatv2_kernels import compiled

# Imported when first used: Triton is heavy.
_MODULES = {"c": "compiled", "triton": "triton_kernels", "blocked": "blocked"}

# Kernels that add the bias themselves: to the others it costs a pass over the messages.
ADD_BIAS = frozenset({"c"})

_FORCED: ContextVar[str | None] = ContextVar("gatv2_backend", default=None)


@torch.compiler.assume_constant_result  # there is nothing in here to trace
def gatv2_backend(device: str | torch.device = "cpu") -> str:
    """Which kernel :class:`~gasmcast.nn.FusedGATv2Conv` uses for tensors on ``device``.

    Args:
        device: A torch device or its name.

    Returns:
        ``"c"``, the compiled kernel (CPU); ``"triton"`` (GPU); or ``"blocked"``, plain PyTorch,
        where the package was installed without a compiler, or where there is no Triton.

    Example:
        >>> from gasmcast.nn import gatv2_backend
        >>> gatv2_backend("cpu") in ("c", "blocked")
        True
    """
    forced = _FORCED.get()
    if forced is not None:
        return forced
    kind = torch.device(device).type
    if kind == "cpu" and compiled.is_available():
        return "c"
    if kind == "cuda" and find_spec("triton") is not None:
        return "triton"
    return "blocked"


@contextmanager
def force_gatv2_backend(name: str) -> Iterator[None]:
    """Use the kernel of this name within the block: to compare them.

    Triton on the CPU needs the environment variable ``TRITON_INTERPRET=1`` from the start.

    Raises:
        ValueError: There is no such kernel, or it is not available here.
    """
    if name not in _MODULES:
        raise ValueError(f"the kernels are {', '.join(_MODULES)}, got {name!r}")
    if name == "c" and not compiled.is_available():
        raise ValueError("the compiled kernel was not built when gasmcast was installed")
    if name == "triton" and find_spec("triton") is None:
        raise ValueError("Triton is not installed")
    token = _FORCED.set(name)
    try:
        yield
    finally:
        _FORCED.reset(token)


def kernel_named(name: str) -> ModuleType:
    """The module of a kernel."""
    return import_module(f"gasmcast.nn.gatv2_kernels.{_MODULES[name]}")
