"""Make a page on which to look around in what a model sees in videos.

    python examples/explore.py VIDEO [VIDEO ...] --checkpoint runs/quickstart/run/model

writes report.html, one file that opens in any browser and needs no network. Several videos come
with an index and can be compared two by two; with their true classes, right and wrong are marked:

    python examples/explore.py a.mp4 b.mp4 --labels='["lifting up", "putting down"]'

For two clips of the quickstart's test set it printed, on two cores and without a GPU:

    written: report.html, 0.36 MB
"""

from pathlib import Path

from jsonargparse import ArgumentParser

from gasmcast import TemporalCrossAttentionModel, VideoReadError, write_report


def main(
    videos: list[Path],
    checkpoint: Path = Path("runs/quickstart/run/model"),
    output: Path = Path("report.html"),
    labels: list[str | None] | None = None,
) -> None:
    """Make a page on which to look around in what a model sees in videos.

    Args:
        videos: The video files.
        checkpoint: Folder of a saved model (config.json and model.safetensors).
        output: Where to write the page.
        labels: Names of the true classes, one a video; null where it is not known.
    """
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    model = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    path = write_report(model, videos, output, labels=labels)
    print(f"written: {path}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = ArgumentParser(description=main.__doc__.partition("\n")[0], allow_abbrev=False)
    # As files one after the other; of a list, jsonargparse would expect JSON.
    parser.add_argument("videos", nargs="+", type=Path, help="The video files.")
    parser.add_function_arguments(main, skip={"videos"}, as_group=False)
    try:
        main(**parser.parse_args().as_dict())
    except (OSError, ValueError, VideoReadError) as error:
        raise SystemExit(f"error: {error}") from None
