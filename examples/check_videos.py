"""Find the videos of a data set that cannot be read, before a training run does.

    python examples/check_videos.py VIDEOS --output bad.csv --num_workers 8

reads every video as training would, decodes it to its end, and writes two lists. ``bad.csv`` has
the bad ones with the reason; ``--bad_files`` of the other scripts takes it. ``bad.checked.csv``
beside it has all the others, with a warning where something is odd. A video on which a decoder
hangs is given up and the others go on. Interrupted at any moment, the same command goes on where it
was: what is on the two lists is not read again, but for videos that were not there.

For 80 surveillance clips of two seconds it printed, on two cores after 10 seconds with two workers:

    80 videos, 80 of them read now
    0 of them bad, with the reason in bad.csv
    0 of them with a warning, in bad.checked.csv
"""

from pathlib import Path

from jsonargparse import auto_cli

from gasmcast.datasets import read_videos
from gasmcast.video import check_videos


def main(
    source: str,
    labels: Path | None = None,
    root: Path | None = None,
    split: int = 1,
    output: Path = Path("bad.csv"),
    num_workers: int = 4,
    timeout_seconds: float = 60.0,
) -> None:
    """Find the videos of a data set that cannot be read.

    Args:
        source: The data set: a folder of class folders or an annotation list, see
            gasmcast.datasets.read_videos. Where it holds several parts, they are all checked.
        labels: File of the class names in order, where the source cannot be read without; they make
            no difference to the check.
        root: What relative paths of the list are relative to; null: the list's folder.
        split: Which split, where the source holds several (HMDB51).
        output: The list of bad videos, continued where it exists; the others go on one beside it
            whose name ends in .checked.csv. Several data sets may share them.
        num_workers: Processes that read.
        timeout_seconds: How long each decoder may take for a video.
    """
    videos = read_videos(source, root=root, classes=labels, part=None, split=split)
    paths = [record.path for record in videos.records]
    summary = check_videos(paths, output, num_workers=num_workers, timeout_seconds=timeout_seconds)
    print(f"{summary.num_videos} videos, {summary.num_read} of them read now")
    others = output.with_suffix(".checked.csv")
    print(f"{summary.num_bad} of them bad, with the reason in {output}")
    print(f"{summary.num_warnings} of them with a warning, in {others}")


if __name__ == "__main__":
    try:
        auto_cli(main, allow_abbrev=False)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command goes on from here") from None
