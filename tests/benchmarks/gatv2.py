"""FusedGATv2Conv against PyG's GATv2Conv and against its own two linear layers alone."""

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from benchmarks.machine import Machine
from benchmarks.measure import MIB, Effort, Measured, Way, kept_bytes, measure
from benchmarks.page import rounds, table, timings
from gasmcast.graphs import build_temporal_graph
from gasmcast.nn import FusedGATv2Conv, force_gatv2_backend, gatv2_backend
from gasmcast.positions import generate_temporal_positions

HEADS = 8
LINEAR = "its two linear layers alone"
OURS = "ours"
OURS_NEW_GRAPH = "ours, a new graph each time"
OURS_FEATURES = "ours, with 4 edge features and dropout"
BLOCKED = "ours, blocked PyTorch"
PYG = "PyG"
PYG_FEATURES = "PyG, with 4 edge features and dropout"
WAYS = (LINEAR, OURS, OURS_NEW_GRAPH, OURS_FEATURES, BLOCKED, PYG, PYG_FEATURES)


@dataclass(frozen=True)
class Case:
    """Clips whose nodes each hear a few others of their clip.

    Attributes:
        clips: Clips B.
        nodes: Nodes N of each.
        degree: Edges that enter each node; None: those of a temporal graph, window 2.
        width: Channels D, in and out.
        dtype: Of everything.
    """

    clips: int
    nodes: int
    degree: int | None
    width: int
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        return f"{self.clips} x {self.nodes} x {self.width}"

    def edge_index(self) -> Tensor:
        """Sorted by target, then source; the sources of a node are distinct."""
        if self.degree is None:
            positions = generate_temporal_positions(self.nodes, self.nodes)
            features = torch.zeros(self.clips, self.nodes, 1)
            graph = build_temporal_graph(positions, 2, features=features, similarity_threshold=2)
            return graph.edge_index
        generator = torch.Generator().manual_seed(0)
        chance = torch.rand(self.clips, self.nodes, self.nodes, generator=generator)
        near = chance.topk(self.degree).indices.sort().values
        first = torch.arange(self.clips).view(-1, 1, 1) * self.nodes
        target = (torch.arange(self.nodes).view(-1, 1) + first).expand_as(near)
        return torch.stack([(near + first).flatten(), target.flatten()])


MAIN_CASES = tuple(Case(8, 196, degree, 768) for degree in (8, 16, 32, 60))
TEMPORAL_CASE = Case(512, 8, None, 512)
GRID = tuple(
    Case(clips, 196, degree, width)
    for width in (768, 512)
    for clips in (1, 8, 32)
    for degree in (8, 16, 32, 60)
    # PyG's layer, forward and backward, in this comparison ran out of 24 GiB there.
    if (clips, degree, width) != (32, 60, 768)
)
ONE_THREAD = tuple(case for case in GRID if case.clips == 8)
GPU_CASES = tuple(
    Case(64, 196, degree, 768, dtype)
    for dtype in (torch.bfloat16, torch.float32)
    for degree in (16, 60)
)


def run(effort: Effort) -> str:
    """Measure all and return the section of the page."""
    machine = Machine(effort.device, ("torch-geometric",))
    on_gpu = torch.device(effort.device).type == "cuda"
    cases = GPU_CASES if on_gpu else (*MAIN_CASES, TEMPORAL_CASE)
    if effort.tiny:
        cases = Case(2, 9, 3, 16), Case(3, 8, None, 16)
    summary, details = [], []
    for case in cases:
        measured, kept, degree = _measure_case(case, effort, WAYS)
        summary.append(
            [
                case.name,
                f"{degree:.3g}",
                measured.ratio(PYG, LINEAR),
                measured.ratio(OURS, LINEAR),
                measured.ratio(OURS_FEATURES, LINEAR),
                measured.ratio(PYG, OURS),
                measured.ratio(PYG, BLOCKED),
                f"{kept[PYG] / kept[OURS]:.1f}",
            ]
        )
        details.append(
            f"**{case.name}**, {degree:.3g} edges a node, {case.dtype}, {rounds(measured)}."
        )
        in_mib = {name: f"{size / MIB:.1f}" for name, size in kept.items()}
        details.append(timings(measured, LINEAR, "linear = 1", {"kept MiB": in_mib}))
    parts = [
        f"Measured on: {machine}. The kernel is `{gatv2_backend(effort.device)}`.",
        table(
            (
                "B x N x D",
                "edges a node",
                "PyG / linear",
                "ours / linear",
                "ours, with features and dropout / linear",
                "PyG / ours",
                "PyG / blocked",
                "kept, PyG / ours",
            ),
            summary,
        ),
        *details,
    ]
    return "\n\n".join(parts)


def run_sizes(effort: Effort) -> str:
    """Every size with all threads, and 8 clips with one, in one row each; the section of the page.

    PyG's layer takes some 12 GiB at the largest. Rows are shown as they come.
    """
    machine = Machine(effort.device, ("torch-geometric",))
    cases, one_thread = GRID, ONE_THREAD
    if effort.tiny:
        cases = one_thread = (Case(2, 9, 4, 16),)
    brief = replace(effort, seconds=effort.seconds / 16, min_rounds=min(effort.min_rounds, 3))
    threads, names, rows = torch.get_num_threads(), (LINEAR, OURS, PYG), []
    try:
        for count in sorted({1, threads}, reverse=True):
            torch.set_num_threads(count)
            for case in cases if count == threads else one_thread:
                gc.collect()  # of the last case; the largest fill most of a machine's memory
                both, kept, _ = _measure_case(case, brief, names)
                forward = measure(_ways(case, brief, names, backward=False), brief)
                rows.append(
                    [
                        case.name,
                        case.degree,
                        count,
                        f"{both.ratio(OURS, LINEAR).median:.2f}",
                        f"{both.ratio(PYG, OURS).median:.1f}",
                        f"{forward.ratio(OURS, LINEAR).median:.2f}",
                        f"{forward.ratio(PYG, OURS).median:.1f}",
                        f"{both.peak_bytes[PYG] / both.peak_bytes[OURS]:.1f}",
                        f"{kept[PYG] / kept[OURS]:.1f}",
                    ]
                )
                print(*rows[-1], file=sys.stderr, flush=True)
    finally:
        torch.set_num_threads(threads)
    header = (
        "B x N x D",
        "edges a node",
        "threads",
        "ours / linear",
        "PyG / ours",
        "forward: ours / linear",
        "forward: PyG / ours",
        "peak, PyG / ours",
        "kept, PyG / ours",
    )
    return "\n\n".join([f"Measured on: {machine}.", table(header, rows)])


def _measure_case(
    case: Case, effort: Effort, names: tuple[str, ...]
) -> tuple[Measured, dict[str, int], float]:
    """Time and peak memory of every way, bytes kept for backward, and edges a node."""
    ways = _ways(case, effort, names, backward=True)
    kept = {
        way.name: kept_bytes(forward.call)
        for way, forward in zip(ways, _ways(case, effort, names, backward=False), strict=True)
    }
    degree = case.edge_index().size(1) / (case.clips * case.nodes)
    return measure(ways, effort), kept, degree


def _ways(case: Case, effort: Effort, names: tuple[str, ...], backward: bool) -> list[Way]:
    """Every way, forward or also backward, once all layers agree in output and gradients."""
    torch.manual_seed(0)
    settings = {"device": effort.device, "dtype": case.dtype}
    shape = case.clips * case.nodes, case.width
    x = torch.randn(shape, **settings).requires_grad_()
    grads = torch.randn(shape, **settings), torch.randn(shape, **settings)
    edge_index = case.edge_index().to(effort.device)
    edge_attr = torch.randn(edge_index.size(1), 4, **settings)

    pyg = {
        features: GATv2Conv(
            case.width, case.width // HEADS, HEADS, add_self_loops=False, **options
        ).to(**settings)
        for features, options in ((False, {}), (True, {"edge_dim": 4, "dropout": 0.1}))
    }
    ours = {features: _fused(layer) for features, layer in pyg.items()}
    linear = nn.ModuleList(nn.Linear(case.width, case.width, **settings) for _ in range(2))

    def step(module: nn.Module, forward: Callable[[], list[Tensor]]) -> object:
        outputs = forward()
        if backward:
            torch.autograd.backward(outputs, grads[: len(outputs)])
            module.zero_grad()  # nothing is left behind, so that the next call's memory is its own
            x.grad = None
        return outputs

    def of(layer: GATv2Conv, *more: Tensor) -> Callable[[], object]:
        return partial(step, layer, lambda: [layer(x, edge_index, *more)])

    def new_graph() -> object:
        return step(ours[False], lambda: [ours[False](x, edge_index.clone())])

    def blocked() -> object:
        with force_gatv2_backend("blocked"):
            return of(ours[False])()

    calls = {
        LINEAR: partial(step, linear, lambda: [layer(x) for layer in linear]),
        OURS: of(ours[False]),
        OURS_NEW_GRAPH: new_graph,
        OURS_FEATURES: of(ours[True], edge_attr),
        BLOCKED: blocked,
        PYG: of(pyg[False]),
        PYG_FEATURES: of(pyg[True], edge_attr),
    }
    for features, more in ((False, ()), (True, (edge_attr,))):
        check_same(
            partial(pyg[features], x, edge_index, *more),
            partial(ours[features], x, edge_index, *more),
        )
    return [Way(name, calls[name]) for name in names]


def _fused(layer: GATv2Conv) -> FusedGATv2Conv:
    """Our layer with the weights of PyG's."""
    ours = FusedGATv2Conv(
        layer.in_channels,
        layer.out_channels,
        layer.heads,
        dropout=layer.dropout,
        add_self_loops=layer.add_self_loops,
        edge_dim=layer.edge_dim,
    ).to(layer.att)
    ours.load_state_dict(layer.state_dict())
    return ours


def check_same(theirs: Callable[[], Tensor], ours: Callable[[], Tensor]) -> None:
    """Refuse outputs that differ by more than rounding, dropout with the same seed included.

    Raises:
        RuntimeError: They do.
    """
    outputs = []
    for call in (theirs, ours):
        torch.manual_seed(1)
        with torch.no_grad():
            outputs.append(call())
    tolerance = 1e-5 if outputs[0].dtype is torch.float32 else 2e-2
    expected, output = (output.float() for output in outputs)
    difference = (output - expected).abs().max() / expected.abs().max()
    if not difference < tolerance:
        raise RuntimeError(f"the layers differ by {difference:.1e} of the largest output")
