"""Sections of a Markdown page that benchmarks write themselves."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are set to the right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine(device: str, packages: Sequence[str]) -> str:
    """The machine and the versions of the packages, in words."""
    threads = torch.get_num_threads()
    parts = [f"{_processor()}, {threads} thread{'s' if threads != 1 else ''}"]
    if torch.device(device).type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    parts.append(f"{platform.system()}, Python {platform.python_version()}")
    parts.append(f"torch {torch.__version__}")
    parts += [f"{package} {version(package)}" for package in packages]
    return ", ".join(parts)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_section(page: Path, name: str, section: str) -> None:
    """Put ``section`` between the markers of ``name``, in place of what was there.

    Raises:
        ValueError: The page has not exactly one pair of these markers.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise ValueError(f"{page} must have one line {begin!r} and, below, one line {end!r}")
    page.write_text(f"{before}{begin}\n\n{section.strip()}\n\n{end}{after}", encoding="utf-8")
