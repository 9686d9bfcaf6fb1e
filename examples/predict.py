"""Name the action in a video, with a model saved by a training run.

    python examples/predict.py VIDEO --checkpoint runs/quickstart/run/model --pictures pictures

prints the five most probable actions and, where asked, writes what the model attended to;
`visualize_gasm_cast_attention.py` draws more, and as one chooses.
"""

from pathlib import Path

from jsonargparse import auto_cli

from gasmcast import (
    TemporalCrossAttentionModel,
    VideoReadError,
    inspect_clip,
    visualize_cross_attention_layers,
    visualize_graph_attention,
)
from gasmcast.visualization import check_folder


def main(
    video: Path,
    checkpoint: Path = Path("runs/quickstart/run/model"),
    pictures: Path | None = None,
    top: int = 5,
) -> None:
    """Name the action in a video.

    Args:
        video: The video file.
        checkpoint: Folder of a saved model (config.json and model.safetensors).
        pictures: Folder for pictures of the attention, made if need be; null: none.
        top: How many actions to print.
    """
    if pictures is not None:
        check_folder(pictures)
    if not checkpoint.is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
    model = TemporalCrossAttentionModel.from_pretrained(checkpoint)
    inspection = inspect_clip(model, video)
    for label, probability in inspection.top(top):
        print(f"{probability:7.2%}  {inspection.class_names[label]}")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        draws = [visualize_graph_attention]
        if inspection.layers:  # late fusion has none
            draws.append(visualize_cross_attention_layers)
        for draw in draws:
            path = pictures / f"{video.stem}_{draw.__name__.removeprefix('visualize_')}.png"
            draw(model, inspection, path)
            print(f"written: {path}")


if __name__ == "__main__":
    try:
        auto_cli(main, allow_abbrev=False)
    except (OSError, ValueError, VideoReadError) as error:
        raise SystemExit(f"error: {error}") from None
