"""Build the spatial and the temporal graph of a video and look at them.

    python examples/inspect_graph.py VIDEO --output graphs
    python examples/inspect_graph.py VIDEO --checkpoint runs/quickstart/run/model --output graphs

prints nodes, edges by rule, degrees and components, and writes a picture of each graph and the
graph itself as networkx node-link JSON. With a checkpoint these are the graphs that the model makes
and attends over, attention included; without one, patches and segments are compared by their
pixels, which needs no weights at all.
"""

import json
from pathlib import Path

import networkx as nx
import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from gasmcast import (
    TemporalCrossAttentionModel,
    VideoReadError,
    build_spatial_graph,
    build_temporal_graph,
    draw_graph,
    eval_transform,
    generate_spatial_positions,
    generate_temporal_positions,
    graph_report,
    inspect_clip,
    read_video,
    to_networkx,
)
from gasmcast.visualization import check_folder


def main(
    video: Path,
    output: Path = Path("graphs"),
    checkpoint: Path | None = None,
    similarity_threshold: float = 0.8,
    adjacency_window: float = 2,
) -> None:
    """Build the spatial and the temporal graph of a video and look at them.

    Args:
        video: The video file.
        output: Folder for the pictures and the JSON files, made if need be.
        checkpoint: Folder of a saved model, whose own graphs are shown; null: graphs of pixels.
        similarity_threshold: Cosine similarity that connects two nodes of a graph of pixels.
        adjacency_window: Segments at most so far apart are adjacent, in a graph of pixels.
    """
    check_folder(output)
    if checkpoint is None:
        clip = eval_transform(224)(read_video(video).frames)
        frame = clip[len(clip) // 2]
        graphs = {
            "spatial": build_spatial_graph(
                generate_spatial_positions(14),
                similarity_threshold,
                features=patch_pixels(frame, 14),
            ),
            "temporal": build_temporal_graph(
                generate_temporal_positions(len(clip), 8),
                adjacency_window,
                features=segment_changes(clip, 8),
                similarity_threshold=similarity_threshold,
            ),
        }
    else:
        if not checkpoint.is_dir():
            raise FileNotFoundError(f"{checkpoint} is no folder: expected a saved model")
        model = TemporalCrossAttentionModel.from_pretrained(checkpoint)
        seen = inspect_clip(model, video)
        frame = seen.frames[seen.frame_index]
        graphs = {"spatial": seen.spatial, "temporal": seen.temporal}
    output.mkdir(parents=True, exist_ok=True)
    for name, graph in graphs.items():
        print(f"{name} graph of {video.name}\n{graph_report(graph)}")
        exported = to_networkx(graph)
        path = output / f"{video.stem}_{name}.json"
        path.write_text(json.dumps(nx.node_link_data(exported, edges="edges")))
        figure = Figure(figsize=(6, 6.4) if name == "spatial" else (7, 3), layout="constrained")
        draw_graph(graph, frame, figure.add_subplot())
        figure.savefig(path.with_suffix(".png"), dpi=150)
        print(f"written: {path} and {path.with_suffix('.png')}\n")


def patch_pixels(frame: Tensor, grid: int) -> Tensor:
    """Each patch of a frame as 4 x 4 colours around the frame's mean: [P, 48]."""
    small = F.adaptive_avg_pool2d(frame, 4 * grid)
    small = small - small.mean(dim=(1, 2), keepdim=True)
    return F.unfold(small.unsqueeze(0), kernel_size=4, stride=4)[0].t()


def segment_changes(clip: Tensor, num_segments: int) -> Tensor:
    """Where the picture changes in each segment, on a grid of 14 x 14: [S, 196]."""
    change = F.adaptive_avg_pool2d((clip[1:] - clip[:-1]).abs().mean(dim=1), 14).flatten(1)
    change = change - change.mean(dim=0)
    return torch.stack([part.mean(dim=0) for part in change.tensor_split(num_segments)])


if __name__ == "__main__":
    try:
        auto_cli(main, allow_abbrev=False)
    except (OSError, ValueError, VideoReadError) as error:
        raise SystemExit(f"error: {error}") from None
