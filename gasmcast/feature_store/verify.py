"""Looking for damage in a store."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gasmcast.feature_store.manifest import Manifest
from gasmcast.feature_store.shard import SHARDS, ShardError, check_sum, open_shard
from gasmcast.feature_store.writer import shard_files


@dataclass(frozen=True)
class Damage:
    """What is wrong with one shard.

    Attributes:
        shard: Its number.
        file: The file, or where it should be.
        clips: Ids of its clips.
        reason: A phrase saying what was found.
    """

    shard: int
    file: Path
    clips: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        span = f"{self.clips[0]!r} to {self.clips[-1]!r}" if self.clips else "none of this store"
        return f"{self.file}: {self.reason} ({len(self.clips)} clips, {span})"


def verify_store(
    folder: str | os.PathLike[str],
    *,
    remove: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[Damage]:
    """Read every byte of a store and compare it with checksums and manifest.

    Args:
        folder: The store.
        remove: Delete damaged shard files, so that they count as missing and the next extraction
            makes them again.
        progress: Wraps the shards while they are gone through, such as ``tqdm.tqdm``.

    Returns:
        What is damaged or missing, in the order of the shards; nothing of a sound store.

    Raises:
        FeatureStoreError: There is no store, or its manifest is damaged.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder)
    files = shard_files(folder)
    found = []
    for shard in progress(range(manifest.num_shards)):
        file = files.get(shard, folder / SHARDS / f"{shard:05}")
        try:
            if shard in files:
                check_sum(file)
            open_shard(file, manifest, shard)
        except ShardError as error:
            clips = tuple(manifest.ids[number] for number in manifest.clips_of(shard))
            found.append(Damage(shard, file, clips, str(error)))
            if remove:
                file.unlink(missing_ok=True)
    for shard, file in sorted(files.items()):
        if shard >= manifest.num_shards:
            reason = f"the store has {manifest.num_shards} shards, not so many"
            found.append(Damage(shard, file, (), reason))
            if remove:
                file.unlink(missing_ok=True)
    return found
