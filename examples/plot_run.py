"""Draw how training runs went: curves, confusion matrix, accuracy by class.

    python examples/plot_run.py runs/quickstart/run --output figures
    python examples/plot_run.py runs/seed_0 runs/seed_1 runs/seed_2 --output figures --format pdf

draws what the files in the folder of a run hold, while it is running too. The curves of several
runs are drawn into one figure; the confusion matrix and the accuracy by class are those of each run
on its test videos, and are numbered like the runs. The folder of an evaluation has these two alone.
"""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser

from gasmcast.visualization import (
    check_folder,
    visualize_class_accuracy,
    visualize_confusion_matrix,
    visualize_training_curves,
)


def main(
    runs: list[Path], output: Path = Path("figures"), format: Literal["png", "pdf", "svg"] = "png"
) -> None:
    """Draw how training runs went.

    Args:
        runs: Folders of training runs, or of evaluations.
        output: Folder for the figures, made if need be.
        format: Of the figures.
    """
    check_folder(output)
    for run in runs:
        if not (run / "log").is_dir() and not (run / "results.json").is_file():
            raise FileNotFoundError(
                f"{run} is no run: expected a folder with log, or with results.json of an "
                "evaluation"
            )
    output.mkdir(parents=True, exist_ok=True)
    trained = [run for run in runs if (run / "log").is_dir()]
    if trained:
        path = output / f"training_curves.{format}"
        visualize_training_curves(trained, path)
        print(f"written: {path}")
    for number, run in enumerate(runs, start=1):
        if not (run / "results.json").is_file():
            print(f"{run} is not evaluated yet: no confusion matrix, no accuracy by class")
            continue
        # Several runs can have the same name.
        name = "" if len(runs) == 1 else f"{number}_{run.resolve().name}_"
        for draw in (visualize_confusion_matrix, visualize_class_accuracy):
            what = draw.__name__.removeprefix("visualize_")
            path = output / f"{name}{what}.{format}"
            draw(run, path)
            print(f"written: {path}")


if __name__ == "__main__":
    # Not auto_cli, which takes no list of values without brackets.
    parser = ArgumentParser(description="Draw how training runs went.", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of runs, or of evaluations.")
    parser.add_argument("--config", action="config", help="Path to a configuration file.")
    parser.add_function_arguments(main, skip={"runs"}, as_group=False)
    options = parser.parse_args().as_dict()
    options.pop("config")
    try:
        main(**options)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
