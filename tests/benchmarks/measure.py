"""Time and peak memory of several ways to do the same, measured against each other in one run."""

import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

MIB = 2**20
# A call is tried again, for at most so long, if its threads waited for a core for this share of it.
PATIENCE_SECONDS = 2.0
DISTURBED = 0.03


@dataclass(frozen=True)
class Effort:
    """How long to measure, and where.

    Attributes:
        device: ``"cpu"`` or a CUDA device.
        seconds: Timing of one comparison stops after so long, though not before ``min_rounds``.
        min_rounds: Rounds at least, in each of which every way is called once.
        max_rounds: Rounds at most.
        tries: Calls of each way in a round at most: see :func:`measure`.
        tiny: A try at small sizes: it shows that the benchmark runs, and its figures mean nothing.
    """

    device: str = "cpu"
    seconds: float = 60.0
    min_rounds: int = 7
    max_rounds: int = 50
    tries: int = 20
    tiny: bool = False


@dataclass(frozen=True)
class Way:
    """One way to do it.

    Attributes:
        name: As the table gives it.
        call: Does it.
        memory: Who allocates: ``"torch"``, or ``"python"`` for Python objects and numpy arrays.
    """

    name: str
    call: Callable[[], object]
    memory: str = "torch"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return cls(*values * 3)
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        low, median, high = (_three_digits(x) for x in (self.low, self.median, self.high))
        return f"{median} ({low} to {high})"


class Measured:
    """What :func:`measure` found, by the names of the ways.

    Attributes:
        peak_bytes: Peak memory of each way.
        rounds: How often each was timed.
        undisturbed: Share of these times in which no thread waited for a core.
    """

    def __init__(
        self, seconds: dict[str, list[float]], peak_bytes: dict[str, int], undisturbed: float = 1
    ):
        self._seconds, self.peak_bytes, self.undisturbed = seconds, peak_bytes, undisturbed
        self.rounds = len(next(iter(seconds.values())))

    def milliseconds(self, name: str) -> Spread:
        return Spread.of([1000 * seconds for seconds in self._seconds[name]])

    def ratio(self, name: str, reference: str) -> Spread:
        """Time of one way relative to another, taken round by round."""
        rounds = zip(self._seconds[name], self._seconds[reference], strict=True)
        return Spread.of([seconds / base for seconds, base in rounds])


def measure(ways: Sequence[Way], effort: Effort) -> Measured:
    """Time all ways in turn, round after round, in an order drawn anew for each round.

    What else the machine does then meets all ways alike, and ratios within a round hold where times
    do not. But it does not hit them alike: where threads work together, all wait for one that has
    lost its core. So a call in which a thread waited for one is tried again, and the fastest counts
    where every try was disturbed. Peak memory is measured first, in calls of its own that also warm
    up.
    """
    peaks = {way.name: peak_bytes(way.call, effort.device, way.memory) for way in ways}
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    undisturbed: list[bool] = []
    order = random.Random(0)
    begin = time.perf_counter()
    for count in range(effort.max_rounds):
        if count >= effort.min_rounds and time.perf_counter() - begin > effort.seconds:
            break
        gc.collect()
        gc.disable()  # a collection would be put down to whichever way it happens to interrupt
        try:
            for way in order.sample(ways, len(ways)):
                taken, alone = _call(way.call, effort)
                seconds[way.name].append(taken)
                undisturbed.append(alone)
        finally:
            gc.enable()
    return Measured(seconds, peaks, statistics.mean(undisturbed))


def _call(call: Callable[[], object], effort: Effort) -> tuple[float, bool]:
    """Time of one call in seconds, and whether it was undisturbed."""
    tries: list[float] = []
    while len(tries) < effort.tries and sum(tries) < PATIENCE_SECONDS:
        waited = _seconds_waited()
        _synchronize(effort.device)
        begin = time.perf_counter()
        result = call()
        _synchronize(effort.device)
        tries.append(time.perf_counter() - begin)
        del result
        if _seconds_waited() - waited <= DISTURBED * tries[-1]:
            return tries[-1], True
    return min(tries), False


def _seconds_waited() -> float:
    """How long the threads of this process, ready to run, have waited for a core; Linux tells."""
    # Time on a core, time waiting for one, both in nanoseconds, and how often.
    waited = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            waited += int(file.read_text().split()[1])
    return waited / 1e9


def peak_bytes(call: Callable[[], object], device: str = "cpu", memory: str = "torch") -> int:
    """Most bytes that were allocated at one time during a call, its result included.

    What was there before the call, such as its input, does not count. Of torch on the CPU: every
    allocation for tensors, the scratch space within an operator too, as the profiler records it;
    the same at each call. On CUDA: as torch's caching allocator counts. Of Python: objects and
    numpy arrays, as tracemalloc counts.
    """
    call()  # what is allocated once and kept is not the call's
    if memory == "python":
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    live = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        live += change.nbytes()
        peak = max(peak, live)
    return peak


def kept_bytes(forward: Callable[[], object]) -> int:
    """Bytes of what autograd keeps of a forward pass, parameters and inputs not counted.

    Each storage counts once, and whole.
    """
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if not base.is_leaf or not base.requires_grad:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storages.values())


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _three_digits(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"
