"""The machine that a benchmark ran on, in words."""

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch


class Machine:
    """Made before a benchmark, it can say afterwards what else was going on.

    Args:
        device: ``"cpu"`` or a CUDA device.
        packages: Whose versions matter, besides torch.
    """

    def __init__(self, device: str, packages: Sequence[str]):
        self._device, self._packages = device, packages
        self._begin = time.perf_counter(), _busy_seconds(), time.process_time()

    def __str__(self) -> str:
        threads = torch.get_num_threads()
        parts = [f"{_processor()}, {threads} of {os.cpu_count()} cores"]
        if torch.device(self._device).type == "cuda":
            parts.append(torch.cuda.get_device_name(self._device))
        parts.append(f"{platform.system()}, Python {platform.python_version()}")
        parts.append(f"torch {torch.__version__}")
        parts += [f"{package} {version(package)}" for package in self._packages]
        others = self.share_of_others()
        if others is not None:
            parts.append(f"other programs kept the cores busy {others:.0%} of the time")
        return ", ".join(parts)

    def share_of_others(self) -> float | None:
        """Time that other programs took, of the time of all cores since this was made."""
        wall, busy, own = self._begin
        now = _busy_seconds()
        if busy is None or now is None:
            return None
        others = (now - busy) - (time.process_time() - own)
        return max(others, 0.0) / ((time.perf_counter() - wall) * os.cpu_count())


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _busy_seconds() -> float | None:
    """Time that all cores together have worked since the start of the machine; Linux tells."""
    statistics = Path("/proc/stat")
    if not statistics.is_file():
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(field) for field in statistics.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
