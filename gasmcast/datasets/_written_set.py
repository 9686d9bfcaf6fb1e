"""A set of rendered clips as a folder of video files with annotation lists.

The folder states the parameters that it was written with. A video file gets its name once it is
complete, and a split's list is written last, so the writing can be killed at any moment and goes on
when it is started again. What the killed one left unfinished is then deleted.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from gasmcast.processes import PoolContext, end_with_parent, interrupt_afterwards
from gasmcast.whole_file import leftovers, name_of, whole_file


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
    """What is to be known of a clip of any set; each set adds what its classes are made of."""

    path: str
    label: str
    target: int
    split: str
    seed: int


Clip = TypeVar("Clip", bound=WrittenClip)


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
    version: int,
    chosen: Mapping[str, object],
    classes: Mapping[str, Mapping[str, str]],
    make: Callable[..., Clip],
    draw: Callable[[Clip], torch.Tensor],
    clips_per_class: Mapping[str, int],
    *,
    num_frames: int,
    size: int,
    seed: int,
    codec: str,
    fps: int,
    progress: bool,
    processes: int = 1,
) -> dict[str, list[Clip]]:
    """Write what is missing of a set; what makes none is refused beforehand by :func:`check_set`.

    Args:
        root: The folder; made if it is not there.
        stated_in: Name of the file that holds the parameters, so that a folder that is there is
            known to be of the same ones.
        version: Of the pictures.
        chosen: Parameters that this set has and others have not.
        classes: As for :func:`list_clips`.
        make: Likewise.
        draw: The frames of a clip, uint8 [T, 3, H, W].
        clips_per_class: For each split.
        num_frames: T.
        size: H and W.
        seed: Of the set.
        codec: One of :data:`CODECS`.
        fps: Frames per second that the files state.
        progress: Whether to show a progress bar.
        processes: How many draw at the same time; with one, it is this one.

    Returns:
        The clips of each split, in the order of its list.

    Raises:
        ValueError: The folder was written with other parameters, or holds something else.
        ChildProcessError: One of several processes ended by itself.
    """
    parameters = {
        "version": version,
        "clips_per_class": {split: int(count) for split, count in clips_per_class.items()},
        **chosen,
        "num_frames": int(num_frames),
        "size": int(size),
        "seed": int(seed),
        "codec": codec,
        "fps": int(fps),
    }
    _claim_folder(root, stated_in, parameters)
    labels = {label: target for target, label in enumerate(classes)}
    _write(root / "labels.json", json.dumps(labels, indent=2).encode() + b"\n")
    splits = {
        split: list_clips(make, classes, split, int(count), int(seed), CODECS[codec].suffix)
        for split, count in clips_per_class.items()
    }
    clips = [clip for split_clips in splits.values() for clip in split_clips]
    write = partial(_write_clip, root, draw, CODECS[codec], int(fps))
    if processes == 1:
        for clip in _with_progress(clips, len(clips), progress):
            write(clip)
    else:
        with ProcessPoolExecutor(processes, PoolContext(), _begin) as pool:
            try:
                with interrupt_afterwards():
                    written = pool.map(write, clips, chunksize=8)
                for _ in _with_progress(written, len(clips), progress):
                    pass
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    "a process that draws clips ended by itself, perhaps for want of memory (fewer "
                    "processes need less): what is written stays, and the same call goes on from "
                    'there; in a script it has to stand under if __name__ == "__main__":'
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)  # stopped half way, it would draw all the rest
    for split, split_clips in splits.items():
        table = io.StringIO(newline="")
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["path", "label"])
        rows.writerows([clip.path, clip.label] for clip in split_clips)
        _write(root / f"{split}.csv", table.getvalue().encode())
    lists = [stated_in, "labels.json", *(f"{split}.csv" for split in splits)]
    _tidy(root, [*lists, *(clip.path for clip in clips)])
    return splits


def list_clips(
    make: Callable[..., Clip],
    classes: Mapping[str, Mapping[str, str]],
    split: str,
    count: int,
    seed: int,
    suffix: str,
) -> list[Clip]:
    """The clips of a split, class by class.

    Args:
        make: Makes a clip of the fields of :class:`WrittenClip` and those of its class.
        classes: For the name of each class, in their order, the fields that it is made of.
        split: The split.
        count: Clips of each class.
        seed: Of the set.
        suffix: Of the files.
    """
    return [
        make(
            # The file's name says it all without its folder: features are often kept by it.
            path=f"{split}/{label.replace(' ', '_')}/{split}_{target:02d}_{number:05d}{suffix}",
            label=label,
            target=target,
            split=split,
            seed=clip_seed(seed, split, label, number),
            **made_of,
        )
        for target, (label, made_of) in enumerate(classes.items())
        for number in range(count)
    ]


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


def _begin() -> None:
    torch.set_num_threads(1)  # more of each process would wait for each other
    end_with_parent()


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
    try:
        with whole_file(path) as file:
            file.write(content)
    except FileNotFoundError:
        if not path.exists():
            raise
        # Another call was first with the set, and has tidied up what this one wrote.


def _tidy(root: Path, names: Iterable[str]) -> None:
    """Delete what is left of calls that were killed at these files, which are there."""
    files = {root / name for name in names}
    for folder in {file.parent for file in files}:
        for part in leftovers(folder, "*"):
            if folder / name_of(part) in files:
                with suppress(OSError):  # Windows keeps what another call has open
                    part.unlink()


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
