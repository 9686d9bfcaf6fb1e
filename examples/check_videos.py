"""Find the videos of a data set that cannot be read, before a training run does.

    python examples/check_videos.py VIDEOS --output bad.csv --num_workers 8

reads every video as training would, decodes it to its end, and writes the bad ones with the reason
to ``bad.csv``, which ``--bad_files`` of the other scripts takes. A video on which a decoder hangs
is given up and the others go on. Beside it, ``bad.checked.csv`` lists the others, with a warning
where something is odd. Interrupted at any moment, the same command goes on where it was.

For 80 surveillance clips of two seconds it printed, on two cores after 10 seconds with two workers:

    80 videos, 80 of them read now
    0 bad: bad.csv
    0 with a warning: bad.checked.csv
"""

from pathlib import Path

from jsonargparse import auto_cli

from gasmcast.datasets import read_videos
from gasmcast.video import check_videos


def main(
    source: str,
    root: Path | None = None,
    output: Path = Path("bad.csv"),
    num_workers: int = 4,
    timeout_seconds: float = 60.0,
) -> None:
    """Find the videos of a data set that cannot be read.

    Args:
        source: The data set: a folder of class folders or an annotation list, see
            gasmcast.datasets.read_videos.
        root: What relative paths of the list are relative to; null: the list's folder.
        output: The list of bad videos, continued where it exists.
        num_workers: Processes that read.
        timeout_seconds: How long each decoder may take for a video.
    """
    videos = read_videos(source, root=root)
    paths = [record.path for record in videos.records]
    summary = check_videos(paths, output, num_workers=num_workers, timeout_seconds=timeout_seconds)
    print(f"{summary.num_videos} videos, {summary.num_read} of them read now")
    print(f"{summary.num_bad} bad: {output}")
    print(f"{summary.num_warnings} with a warning: {output.with_suffix('.checked.csv')}")


if __name__ == "__main__":
    try:
        auto_cli(main)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on from here") from None
