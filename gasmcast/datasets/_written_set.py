"""A set of rendered clips as a folder of video files with annotation lists.

The folder states the parameters that it was written with. A video file gets its name once it is
complete, and a split's list is written last, so the writing can be killed at any moment and goes on
when it is started again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from numbers import Integral
from pathlib import Path
from typing import Protocol

import torch

from gasmcast.whole_file import whole_file


@dataclass(frozen=True)
class Codec:
    encoder: str
    container: str
    suffix: str
    options: dict[str, str]


CODECS = {
    # Without mbtree: with it, x264 gave other bytes for the same small frames now and then, even in
    # one process with one thread.
    "h264": Codec("libx264", "mp4", ".mp4", {"crf": "18", "preset": "veryfast", "mbtree": "0"}),
    "vp9": Codec(
        "libvpx-vp9",
        "webm",
        ".webm",
        {"crf": "20", "b:v": "0", "deadline": "good", "cpu-used": "5"},
    ),
}


class WrittenClip(Protocol):
    """What is to be known of a clip: its file, relative to the set's root, and its class."""

    path: str
    label: str


def check_set(
    clips_per_class: Mapping[str, int],
    *,
    num_frames: int,
    size: int,
    seed: int,
    codec: str,
    fps: int,
) -> None:
    """Raise for what makes no set."""
    for split, count in clips_per_class.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", split):
            raise ValueError(
                "a split's name must consist of letters, digits, '_' and '-' and start with a "
                f"letter or digit, got {split!r}"
            )
        check_whole(f"clips_per_class[{split!r}]", count, 1)
    if not clips_per_class:
        raise ValueError("clips_per_class must name at least one split, got none")
    check_whole("num_frames", num_frames, 2)
    check_whole("size", size, 32)
    if size % 2:
        raise ValueError(f"size must be even for 4:2:0 video, got {size}")
    check_whole("seed", seed, 0)
    check_choice("codec", codec, CODECS)
    check_whole("fps", fps, 1)


def write_set(
    root: Path,
    stated_in: str,
    parameters: Mapping[str, object],
    labels: Mapping[str, int],
    splits: Mapping[str, Sequence[WrittenClip]],
    draw: Callable[[WrittenClip], torch.Tensor],
    *,
    codec: str,
    fps: int,
    progress: bool,
    processes: int = 1,
) -> None:
    """Write what is missing of a set.

    Args:
        root: The folder; made if it is not there.
        stated_in: Name of the file that holds the parameters.
        parameters: What the set was asked for by; of a folder that is there, the same.
        labels: Classes with their numbers.
        splits: The clips of each split.
        draw: The frames of a clip, uint8 [T, 3, H, W].
        codec: One of :data:`CODECS`.
        fps: Frames per second that the files state.
        progress: Whether to show a progress bar.
        processes: How many draw at the same time; with one, it is this one.

    Raises:
        ValueError: The folder was written with other parameters, or holds something else.
    """
    _claim_folder(root, stated_in, parameters)
    _write(root / "labels.json", json.dumps(labels, indent=2).encode() + b"\n")
    clips = [clip for split in splits.values() for clip in split]
    write = partial(_write_clip, root, draw, CODECS[codec], fps)
    if processes == 1:
        for clip in _with_progress(clips, len(clips), progress):
            write(clip)
    else:
        # Not forked: torch's threads may be at work.
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            written = pool.map(write, clips, chunksize=8)
            for _ in _with_progress(written, len(clips), progress):
                pass
    for split, split_clips in splits.items():
        table = io.StringIO(newline="")
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["path", "label"])
        rows.writerows([clip.path, clip.label] for clip in split_clips)
        _write(root / f"{split}.csv", table.getvalue().encode())


def clip_seed(seed: int, split: str, label: str, number: int) -> int:
    """The seed of a clip: what it is, whatever other classes, clips and splits there are."""
    # With 63 bits, the chance that any two of a million clips share a seed is one in ten million.
    # hash() would not do: it differs between processes.
    key = f"{seed}/{split}/{label}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def _claim_folder(root: Path, name: str, parameters: Mapping[str, object]) -> None:
    """Make the folder ours, or find that it already is, with the same parameters."""
    root.mkdir(parents=True, exist_ok=True)
    stated = root / name
    if not stated.exists():
        others = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
        if others:
            raise ValueError(
                f"{root} holds {others[0]!r} but no {name}: a rendered set needs a "
                "folder of its own"
            )
        _write(stated, json.dumps(parameters, indent=2).encode() + b"\n")
        return
    try:
        found = json.loads(stated.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{stated} is not readable as JSON: {error}") from error
    for key, wanted in parameters.items():
        held = found.get(key) if isinstance(found, dict) else None
        if held != wanted:
            raise ValueError(
                f"{root} was written with {key}={held!r}, not {wanted!r}: use another folder, or "
                "delete this one"
            )


def _write_clip(
    root: Path,
    draw: Callable[[WrittenClip], torch.Tensor],
    codec: Codec,
    fps: int,
    clip: WrittenClip,
) -> None:
    target = root / clip.path
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, _encode(draw(clip), codec, fps))


def _encode(frames: torch.Tensor, codec: Codec, fps: int) -> bytes:
    import av

    # Encoded in memory: a killed process leaves no half-written video behind.
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=codec.container) as container:
        stream = container.add_stream(codec.encoder, rate=fps, options=codec.options)
        stream.height, stream.width = frames.shape[-2:]
        stream.pix_fmt = "yuv420p"
        # With several threads the encoder's choices, and so the bytes, would depend on the machine.
        stream.codec_context.thread_count = 1
        for picture in frames.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)


def _with_progress(clips: Iterable, count: int, progress: bool) -> Iterable:
    if not progress:
        return clips
    from tqdm import tqdm

    return tqdm(clips, total=count, desc="rendering", unit="clip")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise where a value is none of the choices."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_choices(name: str, values: Sequence[str], choices: tuple[str, ...]) -> None:
    """Raise where the values are not some of the choices, each once."""
    if isinstance(values, str):
        raise ValueError(f"{name} must be a sequence of names, got the string {values!r}")
    if not values:
        raise ValueError(f"{name} must name at least one of {', '.join(choices)}, got none")
    for value in values:
        check_choice(f"each of {name}", value, choices)
    if len(set(values)) < len(values):
        raise ValueError(f"{name} must not name anything twice, got {', '.join(values)}")


def check_whole(name: str, value: object, least: int) -> None:
    """Raise where a value is no whole number from ``least`` on."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
