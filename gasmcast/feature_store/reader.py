"""Reading a store: any clip, from any process, without a copy."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gasmcast.feature_store.errors import DamagedRecordError, FeatureStoreError
from gasmcast.feature_store.manifest import Manifest
from gasmcast.feature_store.shard import SHARDS, OpenShard, ShardError, check_sum, open_shard
from gasmcast.feature_store.writer import shard_files


class FeatureStore:
    """Features of clips by number or id.

    Each shard file is mapped into memory when it is first read. A record is views of that map, so
    reading it costs next to nothing until its numbers are used; who wants to write to it copies
    first. Pickling takes only the path along: each DataLoader worker, forked or spawned, maps for
    itself, and all share the system's cache.

    Args:
        folder: The store.
        check: Hold each shard against its checksum when it is first read. Without, what overwrites
            numbers in place is found by :func:`verify_store` alone.

    Attributes:
        manifest: What the store holds.
        missing: The shards that are not there (yet).

    Raises:
        FeatureStoreError: There is no store, or its manifest is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], *, check: bool = False) -> None:
        self.folder = Path(folder)
        self.check = check
        self.manifest = Manifest.load(self.folder)
        if not (self.folder / SHARDS).is_dir():
            raise FeatureStoreError(f"{self.folder} has lost its folder {SHARDS}")
        files, own = shard_files(self.folder), range(self.manifest.num_shards)
        # Those with a higher number are of another store: verify_store names them.
        self._files = {shard: files[shard] for shard in own if shard in files}
        self._numbers: dict[str, int] | None = None
        # For each read: name, type, shape of one view and of all, bytes of a view.
        self._layout = tuple(
            (
                name,
                stream.torch_dtype,
                _numpy_dtype(stream.torch_dtype),
                stream.shape,
                (self.manifest.num_views, *stream.shape),
                stream.bytes_per_view,
            )
            for name, stream in self.manifest.streams.items()
        )
        self._open: dict[int, OpenShard] = {}
        self.missing = tuple(shard for shard in own if shard not in files)

    @property
    def ids(self) -> tuple[str, ...]:
        """The clips, in order."""
        return self.manifest.ids

    @property
    def labels(self) -> tuple[int, ...]:
        """The class index of each clip."""
        return self.manifest.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.manifest.classes

    @property
    def num_views(self) -> int:
        """Views V of each clip."""
        return self.manifest.num_views

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What the features depend on besides the clips."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        return len(self.manifest.ids)

    def __getitem__(self, clip: int | str) -> dict[str, Tensor]:
        """The streams of a clip, ``[V, *shape]`` each, as they are on disk.

        Args:
            clip: Its number or its id.

        Raises:
            DamagedRecordError: Its features are missing or damaged, or it never had any.
            IndexError: There is no clip of this number.
            KeyError: There is no clip of this id.
        """
        return self.read(clip)

    def read(self, clip: int | str, view: int | None = None) -> dict[str, Tensor]:
        """The streams of a clip, or of one of its views: ``[*shape]`` each.

        Args:
            clip: Its number or its id.
            view: The view, from 0; None for all, ``[V, *shape]``.

        Raises:
            DamagedRecordError: Its features are missing or damaged, or it never had any.
            IndexError: There is no clip or no view of this number.
            KeyError: There is no clip of this id.
        """
        if view is not None and not 0 <= view < self.num_views:
            raise IndexError(f"view {view} is out of range for {self.num_views} views of each clip")
        number = self._number(clip)
        shard = number // self.manifest.clips_per_shard
        opened = self._open.get(shard) or self._open_shard(shard, number)
        clip = self.manifest.ids[number]
        offsets = opened.offsets.get(clip)
        if offsets is None:
            raise self._damaged(shard, number, f"it has no features: {opened.failed[clip]}")
        record = {}
        for offset, (name, dtype, stored, one, every, size) in zip(
            offsets, self._layout, strict=True
        ):
            shape = every
            if view is not None:
                shape, offset = one, offset + view * size
            # By way of numpy: half the time of torch.frombuffer, and the storage is likewise these
            # bytes alone, so that pickling it does not take the shard along.
            features = torch.from_numpy(np.ndarray(shape, stored, opened.map, offset))
            record[name] = features if dtype is not torch.bfloat16 else features.view(dtype)
        return record

    def failed(self, progress: Callable[[Any], Any] = iter) -> dict[str, str]:
        """The clips that have no features, and why; reads the header of every shard."""
        found: dict[str, str] = {}
        for shard in progress(self._files):
            first = self.manifest.clips_of(shard)[0]
            found |= (self._open.get(shard) or self._open_shard(shard, first)).failed
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _number(self, clip: int | str) -> int:
        if isinstance(clip, str):
            if self._numbers is None:
                self._numbers = {name: number for number, name in enumerate(self.manifest.ids)}
            return self._numbers[clip]
        if not -len(self) <= clip < len(self):
            raise IndexError(f"clip {clip} is out of range for a store of {len(self)} clips")
        return clip % len(self)

    def _open_shard(self, shard: int, number: int) -> OpenShard:
        path = self._files.get(shard)
        if path is None:
            raise self._damaged(shard, number, "the file is missing")
        try:
            if self.check:
                check_sum(path)
            opened = open_shard(path, self.manifest, shard)
        except ShardError as error:
            raise self._damaged(shard, number, str(error)) from error
        self._open[shard] = opened
        return opened

    def _damaged(self, shard: int, number: int, reason: str) -> DamagedRecordError:
        path = self._files.get(shard, self.folder / SHARDS / f"{shard:05}")
        return DamagedRecordError(self.manifest.ids[number], str(path), reason)


def _numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """The numpy type of the same size; numpy has no bfloat16."""
    return np.dtype({torch.bfloat16: "int16"}.get(dtype, str(dtype).removeprefix("torch.")))
