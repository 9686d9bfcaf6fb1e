"""Matrix products in the full precision of their dtype, however a model is trained."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# The settings are those of the whole process: the first that comes in sets them, and the last that
# goes out puts them back, whichever threads these are in.
_LOCK = threading.Lock()
_inside = 0
_before: list[str] = []


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 nor bfloat16 inside float32 products; as before afterwards."""
    with torch.autocast(device.type, enabled=False):
        _enter()
        try:
            yield
        finally:
            _leave()


def _enter() -> None:
    global _inside, _before
    with _LOCK:
        if not _inside:
            _before = _settings()
            _set(["ieee"] * len(_before) if _HAS_FP32_PRECISION else ["highest"])
        _inside += 1


def _leave() -> None:
    global _inside
    with _LOCK:
        _inside -= 1
        if not _inside:
            _set(_before)


_MATMULS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
# Before torch 2.9 there is one setting for all. The two must not be mixed.
_HAS_FP32_PRECISION = hasattr(_MATMULS[0], "fp32_precision")


def _settings() -> list[str]:
    if _HAS_FP32_PRECISION:
        return [matmul.fp32_precision for matmul in _MATMULS]
    return [torch.get_float32_matmul_precision()]


def _set(precisions: list[str]) -> None:
    if not _HAS_FP32_PRECISION:
        torch.set_float32_matmul_precision(*precisions)
        return
    for matmul, precision in zip(_MATMULS, precisions, strict=True):
        matmul.fp32_precision = precision


def _new_lock() -> None:
    """In a forked process, where whoever held the lock is not there to give it back."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
