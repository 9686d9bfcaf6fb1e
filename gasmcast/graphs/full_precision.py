"""Matrix products in the full precision of their dtype, however a model is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 nor bfloat16 inside float32 products; as before afterwards."""
    with torch.autocast(device.type, enabled=False):
        matmuls = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
        if hasattr(matmuls[0], "fp32_precision"):
            before = [matmul.fp32_precision for matmul in matmuls]
            try:
                for matmul in matmuls:
                    matmul.fp32_precision = "ieee"
                yield
            finally:
                for matmul, precision in zip(matmuls, before, strict=True):
                    matmul.fp32_precision = precision
            return
        # Before torch 2.9 there is one setting for all. The two must not be mixed.
        precision = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("highest")
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
