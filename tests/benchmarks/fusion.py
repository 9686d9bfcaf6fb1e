"""The fusion stack against cross-attention at full width: operations, memory, time."""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from benchmarks.fusion_rivals import AbsorbedVanilla, Vanilla
from benchmarks.machine import Machine
from benchmarks.measure import MIB, Effort, Way, kept_bytes, measure
from benchmarks.page import rounds, table
from benchmarks.smooth_features import smooth_features
from gasmcast import GASMCAST, generate_spatial_positions, generate_temporal_positions
from gasmcast.nn import BottleneckCrossAttention, CrossAttention, absorbed_attention
from gasmcast.nn.pooled_fusion import fuse_and_pool, masked_mean, merge_maps

LAYERS, CLASSES = 3, 174
VANILLA = "vanilla"
FULL = "CrossAttention"
ABSORBED = "vanilla, absorbed"
PLAIN = "bottleneck, plain"
OURS = "bottleneck"
POOLED_VANILLA = "vanilla, pooled"
POOLED_FULL = "CrossAttention, pooled"
POOLED = "bottleneck, pooled"
WAYS = (VANILLA, FULL, ABSORBED, PLAIN, OURS, POOLED_VANILLA, POOLED_FULL, POOLED)

SUMMARY = (
    "",
    "rival",
    "FLOPs, forward",
    "FLOPs, step",
    "parameters",
    "kept",
    "peak",
    "time, forward",
    "time, step",
)

aten = torch.ops.aten


@dataclass(frozen=True)
class Case:
    """Two streams to fuse.

    Attributes:
        clips: Clips B.
        grid: Rows and columns of patches.
        segments: Segments S.
        sem_dim: Width of the patches.
        mot_dim: Width of the segments.
        dim: Width of the bottleneck.
        heads: Heads of every attention.
        dtype: Of everything.
    """

    clips: int
    grid: tuple[int, int] = (14, 14)
    segments: int = 8
    sem_dim: int = 768
    mot_dim: int = 512
    dim: int = 256
    heads: int = 8
    dtype: torch.dtype = torch.float32

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def name(self) -> str:
        return f"{_clips(self.clips)}, {_name(self.dtype)}"


TINY = Case(2, (3, 3), 3, 16, 12, 8, 2)
CASES = tuple(
    Case(clips, dtype=dtype) for dtype in (torch.float32, torch.bfloat16) for clips in (1, 8, 32)
)


class Stacks:
    """Every stack over the same input.

    Attributes:
        modules: The layers, by name of the way.
        forward: Forward passes, by name of the way.
    """

    def __init__(self, case: Case, device: str):
        torch.manual_seed(0)
        settings = {"device": device, "dtype": case.dtype}
        shape = case.sem_dim, case.mot_dim
        self.inputs = [
            torch.randn(case.clips, number, width, **settings).requires_grad_()
            for number, width in zip((case.patches, case.segments), shape, strict=True)
        ]
        places = [
            generate_spatial_positions(case.grid).to(device),
            generate_temporal_positions(2 * case.segments, case.segments).to(device),
        ]
        vanilla = _stack(lambda: Vanilla(*shape, case.heads), settings)
        absorbed = _stack(lambda: AbsorbedVanilla(*shape, case.heads), settings)
        absorbed.load_state_dict(vanilla.state_dict())
        full = _stack(lambda: CrossAttention(*shape, case.heads), settings)
        ours = _stack(lambda: BottleneckCrossAttention(*shape, case.dim, case.heads), settings)
        for layer in ours:  # they start at zero
            nn.init.normal_(layer.sem_expand.weight, std=0.02)
            nn.init.normal_(layer.mot_expand.weight, std=0.02)

        def tokens(layers: nn.ModuleList, *places: Tensor) -> list[Tensor]:
            streams = self.inputs
            for layer in layers:
                streams = layer(*streams, *places)
            return list(streams)

        def plain() -> list[Tensor]:
            with no_absorption():
                return tokens(ours, *places)

        def pooled(layers: nn.ModuleList, *places: Tensor) -> list[Tensor]:
            return [masked_mean(stream, None) for stream in tokens(layers, *places)]

        def pooled_ours() -> list[Tensor]:
            return list(fuse_and_pool(ours, *self.inputs, *places)[:2])

        self.modules = dict.fromkeys((PLAIN, OURS, POOLED), ours)
        self.modules |= dict.fromkeys((VANILLA, POOLED_VANILLA), vanilla)
        self.modules |= dict.fromkeys((FULL, POOLED_FULL), full) | {ABSORBED: absorbed}
        self.forward: dict[str, Callable[[], list[Tensor]]] = {
            VANILLA: partial(tokens, vanilla),
            FULL: partial(tokens, full, *places),
            ABSORBED: partial(tokens, absorbed),
            PLAIN: plain,
            OURS: partial(tokens, ours, *places),
            POOLED_VANILLA: partial(pooled, vanilla),
            POOLED_FULL: partial(pooled, full, *places),
            POOLED: pooled_ours,
        }
        check_same(self.forward[VANILLA], self.forward[ABSORBED])
        check_same(self.forward[PLAIN], self.forward[OURS])
        check_same(lambda: [stream.mean(dim=1) for stream in tokens(ours, *places)], pooled_ours)

    def step(self, name: str) -> Callable[[], None]:
        """Forward, and backward to the input and to every parameter."""
        return training_step(self.forward[name], self.modules[name], self.inputs)


def training_step(
    forward: Callable[[], list[Tensor]], module: nn.Module, inputs: list[Tensor]
) -> Callable[[], None]:
    """A call that leaves nothing behind, so that its memory is all its own."""
    with torch.no_grad():
        grads = [torch.randn_like(output) for output in forward()]

    def step() -> None:
        torch.autograd.backward(forward(), grads)
        module.zero_grad()
        for tensor in inputs:
            tensor.grad = None

    return step


def run(effort: Effort) -> str:
    """Measure all and return the section of the page."""
    machine = Machine(effort.device, ())
    cases = (TINY,) if effort.tiny else CASES
    brief = replace(effort, seconds=effort.seconds / 4, min_rounds=min(effort.min_rounds, 5))
    summaries: dict[torch.dtype, list[list[object]]] = {}
    details = []
    for case in cases:
        gc.collect()
        rows, more = _measure_case(case, brief)
        summaries.setdefault(case.dtype, []).extend(rows)
        details += more
        print(*rows, sep="\n", file=sys.stderr, flush=True)
    inference = [
        row for case in cases if case.dtype is torch.float32 for row in _inference(case, brief)
    ]
    parts = [
        f"Measured on: {machine}.",
        *(
            f"**In percent of the rival**, {_name(dtype)}.\n\n{table(SUMMARY, rows)}"
            for dtype, rows in summaries.items()
        ),
        *details,
        "**Inference**, three layers to the two means, float32.",
        table(("", "", "GFLOPs", "ms", "vanilla = 1"), inference),
    ]
    return "\n\n".join(parts)


def _measure_case(case: Case, effort: Effort) -> tuple[list[list[object]], list[str]]:
    """Rows of the summary, and the table of all ways."""
    stacks = Stacks(case, effort.device)
    steps = {name: stacks.step(name) for name in WAYS}
    flops = {name: (flops_of(stacks.forward[name]), flops_of(steps[name])) for name in WAYS}
    kept = {name: kept_bytes(stacks.forward[name]) for name in WAYS}
    parameters = {name: number_of_parameters(stacks.modules[name]) for name in WAYS}
    step = measure([Way(name, steps[name]) for name in WAYS], effort)
    forward = measure([Way(name, torch.no_grad()(stacks.forward[name])) for name in WAYS], effort)

    def row(name: str, reference: str) -> list[object]:
        return [
            f"{_clips(case.clips)}{', pooled' if name == POOLED else ''}",
            reference.removesuffix(", pooled"),
            *(_percent(a / b) for a, b in zip(flops[name], flops[reference], strict=True)),
            _percent(parameters[name] / parameters[reference]),
            _percent(kept[name] / kept[reference]),
            _percent(step.peak_bytes[name] / step.peak_bytes[reference]),
            _percent(forward.ratio(name, reference).median),
            _percent(step.ratio(name, reference).median),
        ]

    pairs = ((OURS, VANILLA), (OURS, FULL), (POOLED, POOLED_VANILLA), (POOLED, POOLED_FULL))
    details = [
        [
            name,
            *(f"{number / 1e9:.2f}" for number in flops[name]),
            f"{parameters[name] / 1e6:.2f}",
            f"{kept[name] / MIB:.1f}",
            f"{step.peak_bytes[name] / MIB:.1f}",
            f"{forward.milliseconds(name).median:.1f}",
            f"{step.milliseconds(name).median:.1f}",
            step.ratio(name, VANILLA) if name != VANILLA else 1,
        ]
        for name in WAYS
    ]
    header = (
        "",
        "GFLOPs, forward",
        "GFLOPs, step",
        "parameters, M",
        "kept MiB",
        "peak MiB",
        "ms, forward",
        "ms, step",
        "step, vanilla = 1",
    )
    title = f"**{case.name}**, {rounds(step)}."
    return [row(*pair) for pair in pairs], [title, table(header, details)]


def _inference(case: Case, effort: Effort) -> list[list[object]]:
    """Rows of the table of inference."""
    stacks = Stacks(case, effort.device)
    layers = stacks.modules[OURS].eval().requires_grad_(False)
    places = [
        generate_spatial_positions(case.grid).to(effort.device),
        generate_temporal_positions(2 * case.segments, case.segments).to(effort.device),
    ]
    merged = merge_maps(layers)
    calls = {
        VANILLA: stacks.forward[POOLED_VANILLA],
        FULL: stacks.forward[POOLED_FULL],
        OURS: stacks.forward[POOLED],
        "bottleneck, fused for inference": partial(
            fuse_and_pool, layers, *stacks.inputs, *places, merged=merged
        ),
    }
    check_same(stacks.forward[POOLED], lambda: list(calls["bottleneck, fused for inference"]()[:2]))
    calls = {name: torch.no_grad()(call) for name, call in calls.items()}
    measured = measure([Way(name, call) for name, call in calls.items()], effort)
    return [
        [
            _clips(case.clips),
            name,
            f"{flops_of(call) / 1e9:.2f}",
            measured.milliseconds(name),
            measured.ratio(name, VANILLA) if name != VANILLA else 1,
        ]
        for name, call in calls.items()
    ]


def run_head(effort: Effort) -> str:
    """Measure graph attention and fusion together; the section of the page."""
    machine = Machine(effort.device, ("torch-geometric",))
    cases = (TINY,) if effort.tiny else [case for case in CASES if case.dtype is torch.float32]
    brief = replace(effort, seconds=effort.seconds / 4, min_rounds=min(effort.min_rounds, 5))
    rows = []
    for case in cases:
        gc.collect()
        rows.append(_measure_head(case, brief))
        print(rows[-1], file=sys.stderr, flush=True)
    header = ("", "edges", *SUMMARY[2:], "ms, step")
    return "\n\n".join([f"Measured on: {machine}.", table(header, rows)])


def _measure_head(case: Case, effort: Effort) -> list[object]:
    """A row of the table of the whole head: in percent of vanilla fusion without graphs."""
    stacks = Stacks(case, effort.device)
    features = [
        smooth_features(case.clips, case.grid, case.sem_dim).to(effort.device),
        smooth_features(case.clips, (case.segments,), case.mot_dim).to(effort.device),
    ]
    places = [
        generate_spatial_positions(case.grid),
        generate_temporal_positions(2 * case.segments, case.segments),
    ]
    widths = case.sem_dim, case.mot_dim
    torch.manual_seed(0)
    gasm_cast = GASMCAST(*widths, bottleneck_dim=case.dim, num_heads=case.heads)
    modules = {
        name: nn.ModuleList([fusion, nn.Linear(sum(widths), CLASSES)]).to(effort.device)
        for name, fusion in ((OURS, gasm_cast), (VANILLA, stacks.modules[VANILLA]))
    }

    def ours() -> list[Tensor]:
        return list(gasm_cast(*features, *places, pooled=True))

    def vanilla() -> list[Tensor]:
        streams = features
        for layer in stacks.modules[VANILLA]:
            streams = layer(*streams)
        return [masked_mean(stream, None) for stream in streams]

    def classify(name: str, means: Callable[[], list[Tensor]]) -> list[Tensor]:
        return [modules[name][1](torch.cat(means(), dim=1))]

    forward = {OURS: partial(classify, OURS, ours), VANILLA: partial(classify, VANILLA, vanilla)}
    steps = {name: training_step(forward[name], modules[name], []) for name in forward}
    with torch.no_grad():
        *_, maps = gasm_cast(*features, *places, return_attention=True)
    graphs = maps.semantic_graph, maps.motion_graph
    # Scores, projections of edge features and weighted sums: the kernel's products, not seen by
    # the counter. Backward takes twice as many.
    messages = sum(
        graph.num_edges * width * (4 + 2 * graph.edge_attr.size(1))
        for graph, width in zip(graphs, widths, strict=True)
    )
    flops = {name: [flops_of(forward[name]), flops_of(steps[name])] for name in (OURS, VANILLA)}
    flops[OURS] = [flops[OURS][0] + messages, flops[OURS][1] + 3 * messages]
    kept = {name: kept_bytes(forward[name]) for name in forward}
    parameters = {name: number_of_parameters(module) for name, module in modules.items()}
    step = measure([Way(name, call) for name, call in steps.items()], effort)
    alone = measure([Way(name, torch.no_grad()(call)) for name, call in forward.items()], effort)
    pairs = (*zip(flops[OURS], flops[VANILLA], strict=True),)
    pairs += tuple((of[OURS], of[VANILLA]) for of in (parameters, kept, step.peak_bytes))
    return [
        _clips(case.clips),
        sum(graph.num_edges for graph in graphs),
        *(_percent(mine / theirs) for mine, theirs in pairs),
        _percent(alone.ratio(OURS, VANILLA).median),
        _percent(step.ratio(OURS, VANILLA).median),
        step.milliseconds(OURS),
    ]


def flops_of(call: Callable[[], object]) -> int:
    """Operations of all matrix products of a call, two for each multiplication and addition."""
    # Of attention on the CPU torch has no count of its own.
    forward = aten._scaled_dot_product_flash_attention_for_cpu
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_, **__) -> int:
        return sdpa_flop_count(query, key, value)

    def attention_backward(
        grad: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_, **__
    ) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    mapping = {forward: attention, backward: attention_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return counter.get_total_flops()


def number_of_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def no_absorption() -> Iterator[None]:
    """Have the bottleneck project all tokens, as one would write it first."""
    with patch.object(absorbed_attention, "is_worthwhile", lambda *sizes: False):
        yield


def check_same(theirs: Callable[[], list[Tensor]], ours: Callable[[], list[Tensor]]) -> None:
    """Refuse outputs that differ by more than rounding.

    Raises:
        RuntimeError: They do.
    """
    with torch.no_grad():
        for expected, output in zip(theirs(), ours(), strict=True):
            tolerance = 1e-5 if output.dtype is torch.float32 else 3e-2
            difference = (output.float() - expected.float()).abs().max() / expected.abs().max()
            if not difference < tolerance:
                raise RuntimeError(f"the stacks differ by {difference:.1e} of the largest output")


def _stack(make: Callable[[], nn.Module], settings: dict[str, object]) -> nn.ModuleList:
    return nn.ModuleList(make() for _ in range(LAYERS)).to(**settings)


def _clips(number: int) -> str:
    return "1 clip" if number == 1 else f"{number} clips"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}"
