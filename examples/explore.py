"""Make a page on which to look around in what a model sees in videos.

    python examples/explore.py VIDEO [VIDEO ...] --checkpoint runs/quickstart/run/model

writes report.html, one file that opens in any browser and needs no network. Several videos come
with an index and can be compared two by two. With their true classes, right and wrong are marked;
of videos in class folders the folders name them:

    python examples/explore.py a.mp4 b.mp4 --labels "lifting up" "putting down" --names first second
    python examples/explore.py test/fight/*.mp4 test/nofight/*.mp4 --labels_from_folders

For two clips of the quickstart's test set it printed, on two cores and without a GPU:

    written: report.html, 0.37 MB
"""

from os.path import abspath
from pathlib import Path

from jsonargparse import ArgumentParser

from gasmcast import TemporalCrossAttentionModel, VideoReadError, write_report

EXAMPLE = (
    'example: explore.py a.mp4 b.mp4 --labels "lifting up" "putting down" --names first second'
)


def main(
    videos: list[Path],
    labels: list[str] | None = None,
    names: list[str] | None = None,
    labels_from_folders: bool = False,
    checkpoint: Path = Path("runs/quickstart/run/model"),
    output: Path = Path("report.html"),
) -> None:
    """Make a page on which to look around in what a model sees in videos.

    Args:
        videos: The video files.
        labels: Names of the true classes, one a video.
        names: What to call the videos, one a video.
        labels_from_folders: The true class of each video is the name of its folder.
        checkpoint: Folder of a saved model (config.json and model.safetensors).
        output: Where to write the page.
    """
    if labels_from_folders:
        if labels is not None:
            raise ValueError("--labels and --labels_from_folders cannot go together")
        labels = [Path(abspath(video)).parent.name for video in videos]  # links as they are
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    model = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    path = write_report(model, videos, output, labels=labels, names=names)
    print(f"written: {path}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    # Not auto_cli, which takes no list of values without brackets.
    parser = ArgumentParser(
        description=main.__doc__.partition("\n")[0], epilog=EXAMPLE, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="Path to a configuration file.")
    parser.add_argument("videos", nargs="+", type=Path, help="The video files.")
    parser.add_argument(
        "--labels", nargs="+", metavar="CLASS", help="Names of the true classes, one a video."
    )
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="What to call the videos, one a video."
    )
    parser.add_argument(
        "--labels_from_folders",
        action="store_true",
        help="The true class of each video is the name of its folder.",
    )
    by_hand = {"videos", "labels", "names", "labels_from_folders"}
    parser.add_function_arguments(main, skip=by_hand, as_group=False)
    options = parser.parse_args().as_dict()
    options.pop("config")
    try:
        main(**options)
    except (OSError, ValueError, VideoReadError) as error:
        raise SystemExit(f"error: {error}") from None
