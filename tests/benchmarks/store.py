"""Reading records of a feature store against a memory-mapped numpy file of the same bytes."""

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks.machine import Machine
from benchmarks.measure import MIB, Effort, Measured, Way, measure
from benchmarks.page import rounds, table
from gasmcast.feature_store import FeatureStore, FeatureStoreWriter, Manifest, Stream

SHAPES = {"semantic": (196, 768), "motion": (8, 512)}
CLIPS, READS = 2000, 1000
RECORD = sum(int(np.prod(shape)) * 2 for shape in SHAPES.values())  # bytes
BATCH = 32
REFERENCE = "numpy memory map, one file"
BY_TORCH = "the same, copied by torch"


def run(effort: Effort) -> str:
    """Measure all and return the section of the page."""
    machine = Machine(effort.device, ("safetensors", "numpy"))
    clips, reads = (40, 32) if effort.tiny else (CLIPS, READS)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        path = Path(folder)
        write(path, clips)
        order = random.Random(0).choices(range(clips), k=reads)
        ways = make_ways(path, order)
        check_same(ways)
        direct = measure([Way(name, call) for name, call in ways.items()], effort)
        datasets = {REFERENCE: Rows(path / "rows.npy"), "FeatureStore": Records(path / "store")}
        batches = measure(
            [Way(name, partial(collate, rows, order)) for name, rows in datasets.items()], effort
        )
        loaders = {
            name: loader(dataset, order, workers=0 if effort.tiny else 2)
            for name, dataset in datasets.items()
        }
        loaded = measure([Way(name, call) for name, call in loaders.items()], effort)
    return "\n\n".join(
        [
            f"Measured on: {machine}.",
            f"**{reads} records** of {RECORD / 1000:.0f} kB (196 x 768 and 8 x 512 numbers of two "
            f"bytes), drawn at random out of {clips}, each copied, warm, by one thread, as in a "
            f"DataLoader's worker; {rounds(direct)}. A record of the store is two copies, of the "
            "memory map one.",
            rates(direct, reads),
            f"**The same into batches of {BATCH}**, by torch's collation; {rounds(batches)}.",
            rates(batches, reads),
            f"**The same through a DataLoader** with two workers; {rounds(loaded)}.",
            rates(loaded, reads),
        ]
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one core: numpy copies on one, and so do the workers of a DataLoader."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rates(measured: Measured, reads: int) -> str:
    """A table of all ways: time, rate, and rate in that of the memory map."""
    rows = [
        [
            name,
            measured.milliseconds(name),
            f"{reads * RECORD / MIB / measured.milliseconds(name).median * 1000:,.0f}",
            measured.ratio(REFERENCE, name) if name != REFERENCE else 1,
        ]
        for name in measured.peak_bytes
    ]
    return table(("", "ms", "MiB a second", "rate, memory map = 1"), rows)


def write(path: Path, clips: int) -> None:
    """The same numbers as a store, as rows of one numpy file, and as shards of safetensors."""
    manifest = Manifest(
        ids=tuple(str(number) for number in range(clips)),
        labels=(0,) * clips,
        classes=("any",),
        streams={name: Stream(shape) for name, shape in SHAPES.items()},
        num_views=1,
        fingerprint={},
    )
    writer = FeatureStoreWriter(path / "store", manifest)
    sizes = [int(np.prod(shape)) for shape in SHAPES.values()]
    rows = np.lib.format.open_memmap(
        path / "rows.npy", mode="w+", dtype=np.float16, shape=(clips, sum(sizes))
    )
    generator = torch.Generator().manual_seed(0)
    for shard in writer.pending():
        records = {}
        for number in manifest.clips_of(shard):
            row = torch.randn(sum(sizes), generator=generator).half()
            rows[number] = row.numpy()
            records[str(number)] = {
                name: part.view(1, *shape)
                for (name, shape), part in zip(SHAPES.items(), row.split(sizes), strict=True)
            }
        writer.write(shard, records)
    rows.flush()


def make_ways(path: Path, order: list[int]) -> dict[str, Callable[[], Tensor]]:
    """Each reads and copies all records of ``order``, and gives the last one."""
    rows = np.load(path / "rows.npy", mmap_mode="r")
    writable = np.load(path / "rows.npy", mmap_mode="c")  # as torch wants it
    store = FeatureStore(path / "store")
    files = {}
    for number in range(store.manifest.num_shards):
        file = next((path / "store" / "shards").glob(f"{number:05}-*"))
        files[number] = safe_open(file, framework="pt")

    def by_numpy() -> Tensor:
        for number in order:
            row = torch.from_numpy(np.array(rows[number]))
        return row

    def by_torch() -> Tensor:
        for number in order:
            row = torch.from_numpy(writable[number]).clone()
        return row

    def by_store() -> Tensor:
        for number in order:
            streams = [part.clone() for part in store[number].values()]
        return torch.cat([part.flatten() for part in streams])

    def by_key() -> Tensor:
        for number in order:
            file = files[number // store.manifest.clips_per_shard]
            streams = [file.get_tensor(f"{number}/{name}").clone() for name in SHAPES]
        return torch.cat([part.flatten() for part in streams])

    return {
        REFERENCE: by_numpy,
        BY_TORCH: by_torch,
        "FeatureStore": by_store,
        "safetensors, a call for each key": by_key,
    }


def check_same(ways: dict[str, Callable[[], Tensor]]) -> None:
    """Refuse ways that read different numbers.

    Raises:
        RuntimeError: They do.
    """
    first, *others = (call() for call in ways.values())
    for name, other in zip(list(ways)[1:], others, strict=True):
        if not torch.equal(first, other):
            raise RuntimeError(f"{name} reads other numbers than {REFERENCE}")


class Rows(Dataset):
    """Rows of a numpy file, not copied."""

    def __init__(self, file: Path) -> None:
        self.rows = np.load(file, mmap_mode="c")  # writable in this process, as torch wants it

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Tensor:
        return torch.from_numpy(self.rows[number])


class Records(Dataset):
    """Records of a store."""

    def __init__(self, folder: Path) -> None:
        self.store = FeatureStore(folder)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.store[number]


def collate(dataset: Dataset, order: list[int]) -> object:
    """Batches of all of ``order`` in this process; gives the last."""
    for begin in range(0, len(order), BATCH):
        batch = default_collate([dataset[number] for number in order[begin : begin + BATCH]])
    return batch


def loader(dataset: Dataset, order: list[int], workers: int) -> Callable[[], object]:
    """Reads all of ``order`` through a DataLoader whose workers are there already."""
    batches = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def read() -> object:
        for batch in batches:
            last = batch
        return last

    return read
