"""Run one benchmark: ``python tests/benchmarks graphs [--write docs/benchmarks.md]``.

It prints its section of the page and, with ``--write``, puts it there between its markers.
"""

import argparse
import sys
from pathlib import Path

# The folder is on the path when it is run; what is imported is the package benchmarks, beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from threadpoolctl import threadpool_limits

from benchmarks import (
    deletion,
    fusion,
    fusion_sizes,
    gatv2,
    graphs,
    pipeline,
    randomisation,
    segments,
    store,
)
from benchmarks.measure import Effort
from benchmarks.page import Illustrated, write_section

BENCHMARKS = {
    "graphs": graphs.run,
    "gatv2": gatv2.run,
    "gatv2-sizes": gatv2.run_sizes,
    "segments": segments.run,
    "fusion": fusion.run,
    "fusion-head": fusion.run_head,
    "fusion-sizes": fusion_sizes.run,
    "store": store.run,
    "pipeline": pipeline.run,
    "randomisation": randomisation.run,
    "deletion": deletion.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=60, help="of timing, for each table")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page with the markers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    effort = Effort(device=arguments.device, seconds=arguments.seconds)
    with threadpool_limits(arguments.threads):
        section = BENCHMARKS[arguments.name](effort)
    print(section.text if isinstance(section, Illustrated) else section)
    if arguments.write is not None:
        write_section(arguments.write, arguments.name, section)


if __name__ == "__main__":
    main()
