"""Filling a store, by one process or many, with any interruption."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from gasmcast.feature_store.errors import FeatureStoreError, not_written
from gasmcast.feature_store.manifest import MANIFEST, Manifest
from gasmcast.feature_store.shard import (
    SHARDS,
    ShardError,
    ShardName,
    check_sum,
    encode,
    open_shard,
)
from gasmcast.whole_file import leftovers, name_of, whole_file


class FeatureStoreWriter:
    """Writes the shards of a store that are still missing.

    Made on a folder without a store, it writes the manifest; made on a folder with one, it goes on
    with it if the manifests are equal. Several writers, in one process or on many machines that
    share the folder, need not know of each other: what two of them write twice is kept once.

    Args:
        folder: The store; made if need be.
        manifest: What it is to hold.

    Raises:
        FeatureStoreError: The folder holds another store, whose differences are named, or cannot be
            written to.

    Example:
        >>> import tempfile, torch
        >>> from gasmcast.feature_store import FeatureStore, FeatureStoreWriter, Manifest, Stream
        >>> folder = tempfile.TemporaryDirectory()
        >>> writer = FeatureStoreWriter(folder.name, Manifest(
        ...     ids=("a", "b"), labels=(0, 1), classes=("lift", "drop"), num_views=1,
        ...     streams={"semantic": Stream((196, 768)), "motion": Stream((8, 512))},
        ...     fingerprint={"weights": "random"},
        ... ))
        >>> for shard in writer.pending():
        ...     writer.write(shard, {
        ...         clip: {"semantic": torch.randn(1, 196, 768), "motion": torch.randn(1, 8, 512)}
        ...         for clip in writer.clips(shard)
        ...     })
        >>> FeatureStore(folder.name)["b"]["motion"].shape
        torch.Size([1, 8, 512])
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | os.PathLike[str], manifest: Manifest) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        try:
            (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeatureStoreError(f"{self.folder} cannot be made: {error}") from error
        if not manifest.save(self.folder):
            for part in leftovers(self.folder, MANIFEST):
                part.unlink(missing_ok=True)
            there = Manifest.load(self.folder)
            if there.digest != manifest.digest:
                differ = "\n  ".join(there.differences(manifest)[:8])
                raise FeatureStoreError(
                    f"{self.folder} holds another store; its manifest and that of this run differ "
                    f"in\n  {differ}\ntake another folder, or the settings of the first run"
                )
            self._tidy_finished()

    def pending(
        self, worker: int = 0, num_workers: int = 1, *, retry_failed: bool = False
    ) -> list[int]:
        """The shards that are to be written.

        Args:
            worker: Number of this worker, from 0; it gets every ``num_workers``-th shard.
            num_workers: Workers that share the store.
            retry_failed: Take those with clips without features as well as those that are not
                there. Written again, a shard replaces the one before unless more clips failed.

        Raises:
            ValueError: There is no such worker.
        """
        if not 0 <= worker < num_workers:
            raise ValueError(
                f"worker must be between 0 and {num_workers - 1} with {num_workers} workers in "
                f"all, got {worker}"
            )
        there = self._complete() if retry_failed else shard_files(self.folder)
        own = range(worker, self.manifest.num_shards, num_workers)
        return [shard for shard in own if shard not in there]

    def clips(self, shard: int) -> tuple[str, ...]:
        """Ids of the clips that belong to a shard."""
        return tuple(self.manifest.ids[number] for number in self.manifest.clips_of(shard))

    def write(
        self,
        shard: int,
        records: Mapping[str, Mapping[str, Tensor]],
        failed: Mapping[str, str] | None = None,
    ) -> None:
        """Write a shard, whole or not at all.

        Args:
            shard: Its number.
            records: Of each of its clips by id, the streams by name: ``[V, *shape]``, of any float
                type.
            failed: Of each clip that has no features, why.

        Raises:
            ValueError: The records do not fit the manifest, or do not fit into its numbers.
            FeatureStoreError: The disk is full or the file cannot be written.
        """
        failed = failed or {}
        clips = self.clips(shard)
        if set(clips) != records.keys() | failed.keys() or records.keys() & failed.keys():
            raise ValueError(
                f"shard {shard} must get each of its {len(clips)} clips once, {clips[0]!r} to "
                f"{clips[-1]!r}, got {len(records)} with features and {len(failed)} without"
            )
        converted = {
            clip: {name: self._convert(clip, name, records[clip]) for name in self.manifest.streams}
            for clip in clips
            if clip in records
        }
        content = encode(self.manifest, converted, failed)
        name = ShardName.of(shard, len(failed), content)
        try:
            with whole_file(self.folder / SHARDS / str(name)) as file:
                file.write(content)
        except OSError as error:
            # Another writer of this shard may have been first and tidied up what this one wrote.
            tidied = isinstance(error, FileNotFoundError) and shard in shard_files(self.folder)
            if not tidied:
                raise not_written(error) from error
        _tidy(self.folder / SHARDS, shard)

    def _convert(self, clip: str, name: str, streams: Mapping[str, Tensor]) -> Tensor:
        stream = self.manifest.streams[name]
        expected = (self.manifest.num_views, *stream.shape)
        tensor = streams.get(name)
        if tensor is None or tuple(tensor.shape) != expected:
            found = None if tensor is None else list(tensor.shape)
            raise ValueError(f"{name} of clip {clip!r} must be {list(expected)}, got {found}")
        # A copy: safetensors refuses tensors that share memory, such as slices of one batch.
        kept = tensor.detach().to("cpu", stream.torch_dtype, copy=True).contiguous()
        if not torch.isfinite(kept).all():
            raise ValueError(
                f"{name} of clip {clip!r} has numbers that are not finite in {stream.dtype} "
                f"(largest: {tensor.abs().max().item():.3g}); bfloat16 has a wider range"
            )
        return kept

    def _tidy_finished(self) -> None:
        """Delete what is left of shards whose second writer was killed before it tidied up.

        Nobody is at work at a shard that is there, unless clips failed in it.
        """
        complete = self._complete()
        for part in leftovers(self.folder / SHARDS, "*.safetensors"):
            name = ShardName.parse(name_of(part))
            if name is not None and name.shard in complete:
                part.unlink(missing_ok=True)

    def _complete(self) -> set[int]:
        """The shards that are there with features of all their clips."""
        there = shard_files(self.folder).items()
        return {shard for shard, file in there if not ShardName.parse(file.name).failed}


def shard_files(folder: Path) -> dict[int, Path]:
    """The shard files of a store by their number.

    Where there are several of the same shard, that with most features counts, and of two machines
    whose last digits differ the first by name: for every reader alike.
    """
    with os.scandir(folder / SHARDS) as entries:
        names = _shard_names(entry.name for entry in entries)
    return {name.shard: folder / SHARDS / str(name) for name in reversed(names)}


def _shard_names(files: Iterable[str]) -> list[ShardName]:
    """Those that are names of shards; of one shard, the file that counts comes first."""
    return sorted(filter(None, map(ShardName.parse, files)))


def _tidy(folder: Path, shard: int) -> None:
    """Keep one file of a shard, and nothing of writers that were killed at it."""
    pattern = f"{shard:05}-*.safetensors"
    names = _shard_names(file.name for file in folder.glob(pattern))
    for file in (*(folder / str(name) for name in names[1:]), *leftovers(folder, pattern)):
        file.unlink(missing_ok=True)


def merge_stores(
    target: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]]
) -> list[int]:
    """Bring the shards of stores with the same manifest together, without copying.

    The files get a second name (a hard link) in the target, so all have to lie on one file system.
    Where several stores have a shard, the target keeps that with most features, and of equal ones
    the first by name, whichever store it was in.

    Args:
        target: A store, such as one that another machine has begun.
        sources: Others, which are left as they are.

    Returns:
        The shards that the target still lacks.

    Raises:
        FeatureStoreError: The manifests differ, the files lie on different file systems, or one
            that would take the place of another is damaged.
    """
    target = Path(target)
    manifest = Manifest.load(target)
    there = shard_files(target)
    for source in map(Path, sources):
        writer = Manifest.load(source)
        if writer.digest != manifest.digest:
            differ = "\n  ".join(manifest.differences(writer)[:8])
            raise FeatureStoreError(f"{target} and {source} are different stores:\n  {differ}")
        for shard, file in shard_files(source).items():
            if shard >= manifest.num_shards:
                continue  # of another store: verify_store names it
            held = there.get(shard)
            if held is not None:
                if ShardName.parse(held.name) <= ShardName.parse(file.name):
                    continue
                _check_better(file, held, manifest, shard)
            try:
                os.link(file, target / SHARDS / file.name)
            except OSError as error:
                raise FeatureStoreError(
                    f"{file} cannot be linked into {target}: {error}; move the shard files of one "
                    "store into the other's folder instead"
                ) from error
            there[shard] = target / SHARDS / file.name
            _tidy(target / SHARDS, shard)
    return [shard for shard in range(manifest.num_shards) if shard not in there]


def _check_better(file: Path, held: Path, manifest: Manifest, shard: int) -> None:
    """Read a shard file whole before the one that it is to replace is deleted."""
    try:
        check_sum(file)
        open_shard(file, manifest, shard)
    except ShardError as error:
        raise FeatureStoreError(
            f"{file} cannot take the place of {held}: {error}; verify_store finds and removes such "
            "files"
        ) from error
