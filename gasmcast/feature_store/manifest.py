"""What a store holds, as its ``manifest.json`` says it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import xxhash

from gasmcast.feature_store.errors import FeatureStoreError, not_written
from gasmcast.whole_file import whole_file

MANIFEST = "manifest.json"
FORMAT = "gasmcast feature store 1"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Stream:
    """One kind of features.

    Attributes:
        shape: Of the features of one view, such as (196, 768).
        dtype: Name of the numbers' type on disk: float16, bfloat16 or float32.
    """

    shape: tuple[int, ...]
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(f"a stream's shape must be sizes of at least 1, got {self.shape}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type as torch names it."""
        return DTYPES[self.dtype]

    @property
    def numel(self) -> int:
        """Numbers of one view."""
        return math.prod(self.shape)

    @property
    def bytes_per_view(self) -> int:
        """Size of one view on disk."""
        return self.numel * self.torch_dtype.itemsize


@dataclass(frozen=True)
class Manifest:
    """All that decides what a finished store holds.

    Attributes:
        ids: The clips, in order; each once.
        labels: The class index of each clip.
        classes: The class names; ``classes[label]`` is what a clip shows.
        streams: The kinds of features by name, such as ``semantic`` and ``motion``.
        num_views: Views V of a clip; a record of a stream is ``[V, *shape]``.
        fingerprint: Whatever the features depend on besides the clips, JSON-able: extractors,
            weights, sampling, transform.
        clips_per_shard: Clips of a shard; the last one may have fewer.

    Raises:
        ValueError: The parts do not fit; the message says how.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    streams: Mapping[str, Stream]
    num_views: int
    fingerprint: Mapping[str, Any]
    clips_per_shard: int = 64

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("a store needs at least one clip, got none")
        if len(self.ids) != len(self.labels):
            raise ValueError(
                f"each clip needs a label, got {len(self.ids)} clips and {len(self.labels)} labels"
            )
        if len(set(self.ids)) < len(self.ids):
            seen: set[str] = set()
            twice = next(name for name in self.ids if name in seen or seen.add(name))
            raise ValueError(f"each clip must have an id of its own, got {twice!r} twice")
        for name in self.ids:
            # Names of files can hold bytes that are no text, which JSON would take and safetensors
            # would not.
            if not name or any("\ud800" <= letter <= "\udfff" for letter in name):
                raise ValueError(f"a clip's id must be text that UTF-8 can write, got {name!r}")
        for label in self.labels:
            if not 0 <= label < len(self.classes):
                raise ValueError(
                    f"labels must be indices of the {len(self.classes)} classes, got {label}"
                )
        if not self.streams:
            raise ValueError("a store needs at least one stream, got none")
        for name in self.streams:
            if not name or "/" in name or not name.isprintable():
                raise ValueError(f"a stream's name must be printable and without '/', got {name!r}")
        for name in ("num_views", "clips_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def num_shards(self) -> int:
        """Shards of the finished store."""
        return -(-len(self.ids) // self.clips_per_shard)

    @property
    def bytes_per_clip(self) -> int:
        """Size of a record on disk."""
        return self.num_views * sum(stream.bytes_per_view for stream in self.streams.values())

    def clips_of(self, shard: int) -> range:
        """Numbers of the clips that belong to a shard."""
        begin = shard * self.clips_per_shard
        return range(begin, min(begin + self.clips_per_shard, len(self.ids)))

    @cached_property
    def digest(self) -> str:
        """xxh3 of everything above: equal for equal stores only. Each shard carries it."""
        return xxhash.xxh3_128_hexdigest(_canonical(self._content()))

    def save(self, folder: Path) -> bool:
        """Write it to a folder that has none. Returns whether this call did."""
        content = {**self._content(), "digest": self.digest}
        file = folder / MANIFEST
        try:
            if not file.exists():
                with whole_file(file, new=True) as opened:
                    opened.write(json.dumps(content).encode())
                return True
        except FileExistsError:
            pass  # another process was faster
        except OSError as error:
            raise not_written(error) from error
        return False

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read that of a folder.

        Raises:
            FeatureStoreError: It is not there, is damaged, or of another format.
        """
        file = folder / MANIFEST
        try:
            content = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise FeatureStoreError(f"{folder} is no feature store: it has no {MANIFEST}") from None
        except OSError as error:
            raise FeatureStoreError(f"{file} cannot be read: {error}") from error
        except ValueError as error:
            raise _damaged(file, f"it is not JSON ({error})") from error
        found = content.pop("format", None) if isinstance(content, dict) else None
        if found != FORMAT:
            raise FeatureStoreError(f"{file} must be of the format {FORMAT!r}, got {found!r}")
        digest = content.pop("digest", None)
        if digest != xxhash.xxh3_128_hexdigest(_canonical({"format": FORMAT, **content})):
            raise _damaged(file, "its checksum does not fit its content")
        streams = {
            name: Stream(tuple(stream["shape"]), stream["dtype"])
            for name, stream in content["streams"].items()
        }
        return cls(
            **{key: tuple(content[key]) for key in ("ids", "labels", "classes")},
            streams=streams,
            num_views=content["num_views"],
            fingerprint=content["fingerprint"],
            clips_per_shard=content["clips_per_shard"],
        )

    def differences(self, other: "Manifest") -> list[str]:
        """What differs between two manifests, a phrase each."""
        mine, theirs = self._content(), other._content()
        return list(_differences(mine, theirs))

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "fingerprint": dict(self.fingerprint),
            "streams": {
                name: {"shape": list(stream.shape), "dtype": stream.dtype}
                for name, stream in self.streams.items()
            },
            "num_views": self.num_views,
            "clips_per_shard": self.clips_per_shard,
            "classes": list(self.classes),
            "ids": list(self.ids),
            "labels": list(self.labels),
        }


def _damaged(file: Path, reason: str) -> FeatureStoreError:
    return FeatureStoreError(
        f"{file} is damaged: {reason}; delete it, and the extraction that made the store writes it "
        "again"
    )


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _differences(mine: Any, theirs: Any, name: str = "") -> Sequence[str]:
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        return [
            found
            for key in dict.fromkeys([*mine, *theirs])
            for found in _differences(
                mine.get(key, "nothing"), theirs.get(key, "nothing"), f"{name}.{key}".strip(".")
            )
        ]
    if json.dumps(mine) == json.dumps(theirs):
        return []
    if isinstance(mine, list) and isinstance(theirs, list):
        if len(mine) != len(theirs):
            return [f"{name}: {len(mine)} and {len(theirs)} of them"]
        pairs = zip(mine, theirs, strict=True)
        place, (one, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        return [f"{name}[{place}]: {one!r} and {other!r}"]
    return [f"{name}: {mine!r} and {theirs!r}"]
