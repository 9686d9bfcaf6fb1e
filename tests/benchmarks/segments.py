"""Reductions over segments: torch-scatter's over compressed rows against what PyTorch offers."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import Machine
from benchmarks.measure import Effort, Way, measure
from benchmarks.page import rounds, table

SEGMENTS, ROWS = 1568, 16  # 8 clips of 196 nodes, 16 edges a node
WIDTHS = (8, 768)


def run(effort: Effort) -> str:
    """Measure all and return the section of the page.

    Raises:
        ImportError: torch-scatter is not installed.
    """
    machine = Machine(effort.device, ("torch-scatter",))
    segments, widths = (5, (3,)) if effort.tiny else (SEGMENTS, WIDTHS)
    parts = []
    for width in widths:
        rows = []
        for task, calls in _calls(segments, ROWS, width, effort.device).items():
            check_same(calls)
            measured = measure([Way(name, call) for name, call in calls.items()], effort)
            theirs = next(iter(calls))  # torch-scatter's
            rows += [
                [task, name, measured.milliseconds(name), measured.ratio(name, theirs)]
                for name in calls
            ]
        parts.append(f"**{segments * ROWS} x {width}** in {segments} segments, {rounds(measured)}.")
        parts.append(table(("", "by", "ms", "torch-scatter = 1"), rows))
    return "\n\n".join([f"Measured on: {machine}.", *parts])


def _calls(
    segments: int, rows: int, width: int, device: str
) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """Every way of each task; torch-scatter's comes first."""
    from torch_scatter import gather_csr, segment_csr

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(segments * rows, width, generator=generator).to(device)
    reduced = torch.randn(segments, width, generator=generator).to(device)
    segment = torch.arange(segments, device=device).repeat_interleave(rows)
    ptr = torch.arange(segments + 1, device=device) * rows
    every = torch.arange(len(values), device=device)
    none = values.new_zeros(segments, width)
    bags = partial(F.embedding_bag, every, values, ptr, include_last_offset=True)
    return {
        "maximum": {
            "torch_scatter.segment_csr": partial(segment_csr, values, ptr, reduce="max"),
            "torch.segment_reduce": partial(
                torch.segment_reduce, values, "max", offsets=ptr, axis=0, unsafe=True
            ),
        },
        "sum": {
            "torch_scatter.segment_csr": partial(segment_csr, values, ptr, reduce="sum"),
            "torch.segment_reduce": partial(
                torch.segment_reduce, values, "sum", offsets=ptr, axis=0, unsafe=True
            ),
            "Tensor.index_add": partial(none.index_add, 0, segment, values),
            "F.embedding_bag": partial(bags, mode="sum"),
        },
        "broadcast": {
            "torch_scatter.gather_csr": partial(gather_csr, reduced, ptr),
            "Tensor.index_select": partial(reduced.index_select, 0, segment),
        },
    }


def check_same(calls: dict[str, Callable[[], Tensor]]) -> None:
    """Refuse ways of one task that give different numbers.

    Raises:
        RuntimeError: They do.
    """
    first, *others = (call() for call in calls.values())
    for name, other in zip(list(calls)[1:], others, strict=True):
        if not torch.allclose(first, other, rtol=1e-4, atol=1e-5):
            raise RuntimeError(f"{name} gives other numbers than torch-scatter")
