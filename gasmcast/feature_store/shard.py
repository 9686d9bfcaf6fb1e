"""One file of a store: the records of some clips as safetensors, its checksum in its name."""

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
import xxhash
from safetensors.torch import save
from torch import Tensor

from gasmcast.feature_store.manifest import Manifest, Stream

SHARDS = "shards"
# The name that safetensors gives each type of numbers.
_CODES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_NAME = re.compile(r"(\d{5,})-(\d{5,})-([0-9a-f]{16})\.safetensors")
_METADATA = "gasmcast"


class ShardError(Exception):
    """A shard file is not what it has to be; the message says why."""


class ShardName(NamedTuple):
    """What the name of a shard file says. Of two files of one shard the lesser counts.

    Attributes:
        shard: The shard's number.
        failed: How many of its clips have no features.
        checksum: xxh3 of the content.
    """

    shard: int
    failed: int
    checksum: str

    def __str__(self) -> str:
        return f"{self.shard:05}-{self.failed:05}-{self.checksum}.safetensors"

    @classmethod
    def of(cls, shard: int, failed: int, content: bytes) -> "ShardName":
        """The name of the file with this content."""
        return cls(shard, failed, xxhash.xxh3_64_hexdigest(content))

    @classmethod
    def parse(cls, name: str) -> "ShardName | None":
        """Take a file's name apart; None where it is not that of a shard."""
        match = _NAME.fullmatch(name)
        found = cls(int(match[1]), int(match[2]), match[3]) if match else None
        return found if str(found) == name else None


def encode(
    manifest: Manifest,
    records: Mapping[str, Mapping[str, Tensor]],
    failed: Mapping[str, str],
) -> bytes:
    """The content of a shard file. The same records give the same bytes."""
    tensors = {
        f"{clip}/{name}": tensor
        for clip, streams in records.items()
        for name, tensor in streams.items()
    }
    # One entry: safetensors writes several in an order that changes from run to run.
    metadata = json.dumps({"store": manifest.digest, "failed": dict(failed)}, sort_keys=True)
    return save(tensors, {_METADATA: metadata})


@dataclass(frozen=True)
class OpenShard:
    """A shard file mapped into memory.

    Attributes:
        map: uint8, the bytes of the whole file. It is private to the process: what is written to it
            stays there.
        offsets: Of each clip by id, where the tensors of its streams begin, in the order of the
            manifest's streams.
        failed: Why the clips without features have none, by id.
    """

    map: np.ndarray
    offsets: Mapping[str, tuple[int, ...]]
    failed: Mapping[str, str]


def open_shard(path: Path, manifest: Manifest, shard: int) -> OpenShard:
    """Map a shard file and compare its header with the manifest.

    Raises:
        ShardError: The file is missing, cut off, not of this store or not what the manifest says.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, begin = _header(file, size)
        # Python's own map keeps its file open until it is closed, and a large store has more shards
        # than a process may have open files. That of torch does not.
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except FileNotFoundError:
        raise ShardError("the file is missing") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's, from the map
        raise ShardError(f"the file cannot be opened: {error}") from error
    metadata = _metadata(header)
    if metadata["store"] != manifest.digest:
        raise ShardError("it belongs to another store, whose manifest differs from this one's")
    failed = metadata["failed"]
    clips = [manifest.ids[number] for number in manifest.clips_of(shard)]
    clips = [clip for clip in clips if clip not in failed]
    length = begin + len(clips) * manifest.bytes_per_clip
    if size != length:
        raise ShardError(f"the file is cut off: expected {length} bytes, got {size}")
    offsets = {
        clip: tuple(
            begin + _offset(header, f"{clip}/{name}", stream, manifest.num_views, length - begin)
            for name, stream in manifest.streams.items()
        )
        for clip in clips
    }
    return OpenShard(mapped, offsets, failed)


def check_sum(path: Path) -> None:
    """Hold a shard file's content against the checksum in its name.

    Raises:
        ShardError: They differ, or the file cannot be read.
    """
    expected = ShardName.parse(path.name).checksum
    try:
        # Read, not mapped: what a bad disk cannot give is then an error, and not the process's end.
        with path.open("rb") as file:
            found = hashlib.file_digest(file, xxhash.xxh3_64).hexdigest()
    except FileNotFoundError:
        raise ShardError("the file is missing") from None
    except OSError as error:
        raise ShardError(f"the file cannot be read: {error}") from error
    if found != expected:
        raise ShardError(f"its content is damaged: checksum {found} instead of {expected}")


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The JSON at the beginning of a safetensors file, and where the numbers begin."""
    if size < 8:
        raise ShardError(f"the file is cut off: {size} bytes")
    (length,) = struct.unpack("<Q", file.read(8))
    if 8 + length > size:
        raise ShardError(f"the file is cut off or damaged: a header of {length} bytes in {size}")
    try:
        header = json.loads(file.read(length))
    except ValueError as error:
        raise ShardError(f"its header is damaged: {error}") from error
    if not isinstance(header, dict):
        raise ShardError("its header is damaged: it is no object")
    return header, 8 + length


def _metadata(header: dict[str, Any]) -> dict[str, Any]:
    try:
        metadata = json.loads(header.pop("__metadata__")[_METADATA])
        return {"store": metadata["store"], "failed": dict(metadata["failed"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError("it is no shard of a gasmcast feature store") from error


def _offset(header: dict[str, Any], key: str, stream: Stream, num_views: int, most: int) -> int:
    entry = header.get(key)
    expected = {"dtype": _CODES[stream.torch_dtype], "shape": [num_views, *stream.shape]}
    if entry is None:
        raise ShardError(f"it lacks {key!r}")
    try:
        found = {"dtype": entry["dtype"], "shape": entry["shape"]}
        begin, end = map(int, entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"its header is damaged at {key!r}") from error
    size = num_views * stream.bytes_per_view
    if found != expected or end - begin != size or not 0 <= begin <= most - size:
        raise ShardError(f"{key!r} must be {expected}, got {found}")
    return begin
