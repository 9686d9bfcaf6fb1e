"""Draw what a saved model attends to in a video, and what speaks for the action it names.

    python examples/visualize_gasm_cast_attention.py VIDEO --checkpoint runs/quickstart/run/model

writes three figures, from one pass of the model: the graphs with the attention along their edges,
the three fusion layers in both directions (where the model has them), and the parts that patches
and segments have in the logit of the action. `--truth` names the true class in the titles.
"""

from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli

from gasmcast import (
    TemporalCrossAttentionModel,
    VideoReadError,
    inspect_clip,
    visualize_class_evidence,
    visualize_cross_attention_layers,
    visualize_graph_attention,
)
from gasmcast.visualization import check_folder


def main(
    video: Path,
    checkpoint: Path = Path("runs/quickstart/run/model"),
    output: Path = Path("pictures"),
    head: int | None = None,
    label: int | str | None = None,
    against: int | str | None = None,
    truth: int | str | None = None,
    format: Literal["png", "pdf", "svg"] = "png",
) -> None:
    """Draw what a saved model attends to in a video, and what speaks for the action it names.

    Args:
        video: The video file.
        checkpoint: Folder of a saved model (config.json and model.safetensors).
        output: Folder for the figures, made if need be.
        head: The head whose attention is shown, from 0; null: the mean over heads.
        label: The class whose evidence is shown, by number or name; null: the most probable.
        against: A second class: what speaks for the first rather than for this one.
        truth: The true class, by number or name, for the titles; null: it is not known.
        format: Of the figures; pdf and svg for a paper.
    """
    check_folder(output)
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    model = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    inspection = inspect_clip(model, video)
    # A wrong choice is named before the first figure is written.
    inspection.graph_attention("spatial", head)
    inspection.evidence(label, against)
    inspection.label(truth)
    for number, probability in inspection.top(3):
        print(f"{probability:7.2%}  {inspection.class_names[number]}")
    output.mkdir(parents=True, exist_ok=True)
    figures = [(visualize_graph_attention, {"head": head})]
    if inspection.layers:
        figures.append((visualize_cross_attention_layers, {"head": head}))
    else:
        print('no picture of the fusion layers: the model was made with fusion="late"')
    figures.append((visualize_class_evidence, {"label": label, "against": against}))
    for draw, chosen in figures:
        name = draw.__name__.removeprefix("visualize_")
        path = output / f"{video.stem}_{name}.{format}"
        draw(model, inspection, path, truth=truth, **chosen)
        print(f"written: {path}")


if __name__ == "__main__":
    try:
        auto_cli(main, allow_abbrev=False)
    except (OSError, ValueError, VideoReadError) as error:
        raise SystemExit(f"error: {error}") from None
