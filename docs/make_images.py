"""Make the pictures of the documentation.

    python docs/make_images.py
    python docs/make_images.py --quickstart runs/quickstart

The first makes those that need no model. The second also makes those of what a model attends to,
with the model and the clips of a run of ``examples/quickstart.py``; it needs captum.
"""

import sys
from io import BytesIO
from pathlib import Path

import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from PIL import Image
from torch.nn import functional as F

from gasmcast import (
    TemporalCrossAttentionModel,
    build_graph,
    build_spatial_graph,
    build_spatiotemporal_graph,
    build_temporal_graph,
    draw_graph,
    generate_spatial_positions,
    generate_spatiotemporal_positions,
    generate_temporal_positions,
    inspect_clip,
    visualize_class_evidence,
    visualize_cross_attention_layers,
    visualize_graph_attention,
)
from gasmcast.datasets import APPEARANCES, MOTIONS, render_clip, render_interaction
from gasmcast.datasets.interactions import ACTIONS, AGENTS
from gasmcast.explanation import ClipInspection, GraphPart
from gasmcast.graphs import Adjacent, Nearest, Similar, TargetDegree
from gasmcast.visualization import draw_film_strip, draw_segment_bars, overlay_patches

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import explain_graph
import graph_analysis


def rendered() -> Figure:
    """Eight frames of one clip of each motion."""
    figure = Figure(figsize=(8, 8.3), layout="constrained")
    rows = figure.subplots(len(MOTIONS), 1)
    for row, (ax, motion) in enumerate(zip(rows, MOTIONS, strict=True)):
        clip = render_clip(motion, APPEARANCES[row // 2], seed=row // 2 + 3)[::3]
        ax.imshow(clip.permute(2, 0, 3, 1).flatten(1, 2))
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(motion, rotation=0, ha="right", va="center")
    return figure


def interactions() -> Figure:
    """Six frames of each action, of opposites the one that is drawn, by either of the things."""
    shown = [*ACTIONS[:18:2], *ACTIONS[18:]]
    figure = Figure(figsize=(9.6, 0.72 * len(shown)), layout="constrained")
    for row, (axes, action) in enumerate(zip(figure.subplots(len(shown), 2), shown, strict=True)):
        for ax, agent in zip(axes, AGENTS, strict=True):
            clip = render_interaction(action, agent, seed=20 + row // 4)[[0, 5, 9, 14, 18, 23]]
            ax.imshow(clip.permute(2, 0, 3, 1).flatten(1, 2))
            ax.set(xticks=[], yticks=[])
        axes[0].set_ylabel(action, rotation=0, ha="right", va="center")
    return figure


def _frame_and_patches() -> tuple[torch.Tensor, torch.Tensor]:
    """A frame in 7 x 7 patches, compared by their colours."""
    frame = render_clip("turn_clockwise", "plain", seed=6, size=224)[12].float() / 255
    patches = F.unfold(F.adaptive_avg_pool2d(frame, 28)[None], kernel_size=4, stride=4)[0].t()
    return frame, patches - patches.mean(dim=0)


def graphs() -> Figure:
    """A spatial graph over its frame, patches compared by colour, and a temporal graph."""
    frame, patches = _frame_and_patches()
    steps = torch.tensor([[1.0, 0], [1, 0], [0, 1], [-1, 0], [-1, 0], [0, -1], [1, 0], [1, 0.2]])
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplot_mosaic([["spatial", "."], ["spatial", "temporal"]], height_ratios=(1, 4))
    spatial = build_spatial_graph(generate_spatial_positions(7), 0.9, features=patches)
    draw_graph(spatial, frame, axes["spatial"], top_k=1)
    temporal = build_temporal_graph(generate_temporal_positions(), features=steps)
    draw_graph(temporal, ax=axes["temporal"])
    return figure


def rules() -> Figure:
    """Three rules over the same frame."""
    frame, patches = _frame_and_patches()
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    named = {
        "Adjacent(1)": Adjacent(1),
        "Similar(TargetDegree(3))": Similar(TargetDegree(3)),
        "Nearest(3, 'features') - Adjacent(1)": Nearest(3, "features") - Adjacent(1),
    }
    for ax, (name, rule) in zip(figure.subplots(1, 3), named.items(), strict=True):
        graph = build_graph(rule, generate_spatial_positions(7), features=patches)
        draw_graph(graph, frame, ax, top_k=None)
        ax.set_title(name, fontsize="medium")
    return figure


def space_and_time() -> Figure:
    """A graph over three frames of a moving object."""
    clip = render_clip("left_to_right", "plain", seed=6, size=224)[6:21:7].float() / 255
    patches = F.unfold(F.adaptive_avg_pool2d(clip, 28), kernel_size=4, stride=4).transpose(1, 2)
    patches = patches.flatten(0, 1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    graph = build_spatiotemporal_graph(
        generate_spatiotemporal_positions(3, 7),
        TargetDegree(3),
        features=patches - patches.mean(dim=0),
        self_loops=False,
    )
    draw_graph(graph, clip, figure.add_subplot(), top_k=1)
    return figure


def inspected(quickstart: Path) -> ClipInspection:
    """A clip of the quickstart as its model sees it."""
    model = TemporalCrossAttentionModel.from_pretrained(_model(quickstart))
    clip = Path("test") / "moving_a_checked_object_from_left_to_right" / "test_01_00002.mp4"
    return inspect_clip(model, quickstart / "clips" / clip)


def _model(quickstart: Path) -> Path:
    return quickstart / "run" / "model"


def own_figure(seen: ClipInspection) -> Figure:
    """What one patch takes from its neighbours, and one segment from the patches."""
    patch, segment = 36, 4
    attention = seen.cross_attention("pattern", "motion_to_semantic")[segment]
    back = seen.cross_attention("pattern", "semantic_to_motion")[patch]
    frame = seen.frames[seen.frame_index]
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    left, middle, right = figure.add_gridspec(1, 3)
    ax = figure.add_subplot(left)
    values = seen.graph_attention("spatial")
    label = "attention (line: uniform)"
    draw_graph(seen.spatial, frame, ax, edge_values=values, node=patch, colorbar=label)
    ax.set_title(f"what patch {patch} takes from patches", fontsize="medium")
    ax = figure.add_subplot(middle)
    attention = attention.view(seen.grid_size)
    overlay_patches(frame, attention, ax, colorbar=label)
    ax.set_title(f"what segment {segment} takes from patches", fontsize="medium")
    film, bars = right.subgridspec(2, 1, height_ratios=(1, 4)).subplots()
    draw_film_strip(seen.frames, len(back), film)
    draw_segment_bars(back, bars)
    film.set_title(f"what patch {patch} takes from segments", fontsize="medium")
    return figure


def explained(quickstart: Path) -> Figure:
    """Integrated gradients of both graphs of one clip, as examples/explain_graph.py draws them."""
    model = TemporalCrossAttentionModel.from_pretrained(_model(quickstart))
    seen = inspected(quickstart)
    figure = Figure(figsize=(9, 9.5), layout="constrained")
    places = figure.subfigures(2, 1, height_ratios=(1, 1.4))  # room for the film's frames
    for place, stream in zip(places, ("spatial", "temporal"), strict=True):
        part = GraphPart(model, seen, stream)
        values = explain_graph.explain(part, "captum")
        chosen = explain_graph.strongest(part, values.edges, 6)
        explain_graph.draw(place, part, seen, values, chosen)
    return figure


def analysed(quickstart: Path) -> Figure:
    """A clip as a fresh and the trained model see it, as examples/graph_analysis.py draws it."""
    models = graph_analysis.fresh_and_trained(_model(quickstart))
    trained = models["trained"]
    (clip,) = graph_analysis.outlined_clips(trained.class_names, 1, seed=1_000_000)
    seen = {name: inspect_clip(model, clip.frames) for name, model in models.items()}
    return graph_analysis.draw_clip(seen, graph_analysis.object_patches(trained, clip.mask))


def write(name: str, figure: Figure, dpi: int = 80, *, dither: bool = False) -> None:
    """Write a small picture into docs/images; dithered, colours mean what the colour bar says."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=dpi)
    full = Image.open(drawn).convert("RGB")
    picture = full.quantize(200, Image.Quantize.MAXCOVERAGE)
    if dither:
        picture = full.quantize(palette=picture, dither=Image.Dither.FLOYDSTEINBERG)
    picture.save(Path(__file__).with_name("images") / f"{name}.png", optimize=True)


def main(quickstart: Path | None = None) -> None:
    """Make the pictures of the documentation.

    Args:
        quickstart: Folder of a run of examples/quickstart.py; null: only what needs no model.
    """
    for draw in (rendered, interactions, graphs, rules, space_and_time):
        write(draw.__name__, draw())
    if quickstart is not None:
        seen = inspected(quickstart)
        write("graph_attention", visualize_graph_attention(None, seen), dpi=68, dither=True)
        write("cross_attention", visualize_cross_attention_layers(None, seen), 90, dither=True)
        twin = "moving a plain object from left to right"
        write("class_evidence", visualize_class_evidence(None, seen, against=twin), 90, dither=True)
        write("own_figure", own_figure(seen), 90, dither=True)
        write("explainers", explained(quickstart), 80, dither=True)
        write("graph_analysis", analysed(quickstart), 80, dither=True)


if __name__ == "__main__":
    auto_cli(main, allow_abbrev=False)
