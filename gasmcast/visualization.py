"""Pictures of what a model attends to, over the frames of the clip."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from gasmcast.graphs import draw_graph
from gasmcast.graphs.rules import EdgeRule
from gasmcast.transforms import eval_transform
from gasmcast.video import VideoClip, read_video, segment_indices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gasmcast.model import TemporalCrossAttentionModel
    from gasmcast.nn import GASMCASTAttention

LAYERS = ("basic", "pattern", "action")
HEAT = "inferno"
TOP_K = 2  # far edges drawn for a patch: more would hide the picture
NOTE = {"fontsize": "small", "color": "#555555"}


def load_clip(model: TemporalCrossAttentionModel, video: str | PathLike | Tensor) -> Tensor:
    """A video as the clip the model takes.

    Args:
        model: Says how many frames of which size.
        video: A file; or what ``read_video`` made of it; or its frames, uint8
            [num_frames, 3, H, W]; or a clip ready made, float [T, 3, H, W].

    Returns:
        Float [T, 3, H, W], RGB in [0, 1], on the model's device.

    Raises:
        VideoReadError: The file cannot be read.
        ValueError: A tensor of another shape.
    """
    if isinstance(video, VideoClip):
        video = video.frames
    elif not isinstance(video, Tensor):
        video = read_video(
            video, lambda num_frames: segment_indices(num_frames, model.num_frames)
        ).frames
    if video.dim() != 4 or video.size(1) != 3 or len(video) == 0:
        raise ValueError(f"video must be a path or [T, 3, H, W], got {list(video.shape)}")
    if not video.is_floating_point():
        chosen = segment_indices(len(video), model.num_frames)
        video = eval_transform(model.image_size)(video[chosen])
    return video.to(next(model.parameters()).device)


def visualize_graph_attention(
    model: TemporalCrossAttentionModel,
    video: str | PathLike | Tensor,
    save_path: str | PathLike | None = None,
) -> Figure:
    """Which patches and segments are tied, and how much each is attended to within its stream.

    Left: the spatial graph over the middle frame, edges in the colour of their rule. Middle: the
    attention each patch receives from the other patches. Right: the temporal graph of the segments
    with the attention between them.

    Args:
        model: Its attention is read in ``eval()`` mode; the mode is put back afterwards.
        video: See :func:`load_clip`.
        save_path: Where to write the figure; the ending says the format (png, pdf, svg).

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format.
    """
    _check_save_path(save_path)
    clip = load_clip(model, video)
    title, maps = _run(model, clip)
    figure = _figure(figsize=(15, 5.4))
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.7), width_ratios=(1, 1.12, 0.85))
    frame = clip[len(clip) // 2]

    spatial = maps.semantic_graph[0]
    ax = figure.add_subplot(grid[:, 0])
    draw_graph(spatial, frame, ax, top_k=TOP_K)
    far = spatial.edge_rule == EdgeRule.SIMILAR
    thinned = f"\n(of far similar patches the {TOP_K} most similar)" if bool(far.any()) else ""
    ax.set_title(f"spatial graph, {spatial.num_edges} edges{thinned}", fontsize="medium")

    ax = figure.add_subplot(grid[:, 1])
    received = attention_received(spatial).view(model.semantic_extractor.grid_size)
    overlay_patches(ax, frame, received, "attention received, sum over other patches (line: mean)")
    ax.set_title("graph attention, spatial", fontsize="medium")

    temporal = maps.motion_graph[0]
    ax = figure.add_subplot(grid[0, 2])
    draw_graph(temporal, ax=ax)
    ax.set_title(f"temporal graph, {temporal.num_edges} edges", fontsize="medium")
    ax = figure.add_subplot(grid[1, 2])
    _draw_segment_matrix(ax, temporal)
    figure.suptitle(title)
    return _save(figure, save_path)


def visualize_cross_attention_layers(
    model: TemporalCrossAttentionModel,
    video: str | PathLike | Tensor,
    save_path: str | PathLike | None = None,
) -> Figure:
    """What each of the three fusion layers attends to, in both directions.

    One column a layer: basic, pattern, action. Top: how much the segments take from each patch,
    over the middle frame. Bottom: how much the patches take from each segment, a bar a segment
    under the frames it stands for. Both are means over heads and over the asking tokens, and every
    row of panels has one common scale.

    Args:
        model: As for :func:`visualize_graph_attention`.
        video: See :func:`load_clip`.
        save_path: As for :func:`visualize_graph_attention`.

    Returns:
        The matplotlib figure.

    Raises:
        VideoReadError: The file cannot be read.
        FileNotFoundError: The folder of ``save_path`` is not there.
        ValueError: ``save_path`` ends in no picture format; the model has no fusion layers.
    """
    _check_save_path(save_path)
    if not model.gasm_cast.fusion_layers:
        raise ValueError('the model has no fusion layers to show: it was made with fusion="late"')
    clip = load_clip(model, video)
    title, maps = _run(model, clip)
    grid_size = model.semantic_extractor.grid_size
    on_patches, on_segments = (means.cpu() for means in cross_attention_means(maps))
    figure = _figure(figsize=(13, 7))
    panels = figure.add_gridspec(3, len(LAYERS), height_ratios=(5, 0.62, 1.5))
    frame = clip[len(clip) // 2]
    images = []
    for column, layer in enumerate(LAYERS):
        ax = figure.add_subplot(panels[0, column])
        images.append(
            overlay_patches(
                ax,
                frame,
                on_patches[column].view(grid_size),
                colorbar=None,
                limits=(0.0, float(on_patches.max())),
            )
        )
        ax.set_title(f"layer {column + 1}: {layer}")
        if column == 0:
            ax.set_ylabel("segments attend to patches\n(over the middle frame)", fontsize="small")
        draw_film_strip(figure.add_subplot(panels[1, column]), clip, on_segments.size(1))
        ax = figure.add_subplot(panels[2, column])
        segments = range(on_segments.size(1))
        ax.bar(segments, on_segments[column].tolist(), width=0.85, color="#e45756")
        ax.axhline(1 / len(segments), color="#555555", lw=0.8, ls="--")
        ax.set(xlim=(-0.5, len(segments) - 0.5), ylim=(0, float(on_segments.max()) * 1.1))
        ax.set_xticks(segments)
        ax.set_xlabel("segment", fontsize="small")
        ax.spines[["top", "right"]].set_visible(False)
        if column == 0:
            ax.set_ylabel("patches attend\nto segments", fontsize="small")
            ax.annotate("even", (-0.45, 1 / len(segments)), va="bottom", **NOTE)
    bar = figure.colorbar(
        images[-1],
        ax=figure.axes[:: len(LAYERS)],
        shrink=0.5,
        label="attention of the segments (line: even)",
        location="right",
    )
    bar.ax.axhline(1 / on_patches.size(1), color="white", lw=1.5)
    figure.suptitle(title)
    return _save(figure, save_path)


def attention_received(graph: Data) -> Tensor:
    """Attention each node receives from the others: [N], the mean over heads.

    Self-loops are left out, so the values sum to less than N.
    """
    source, target = graph.edge_index
    weights = graph.attention.mean(dim=1).masked_fill(source == target, 0.0)
    return weights.new_zeros(graph.num_nodes).index_add_(0, source, weights)


def cross_attention_means(maps: GASMCASTAttention) -> tuple[Tensor, Tensor]:
    """Mean attention of the first clip over heads and asking tokens, a row a layer.

    Returns:
        Attention of the segments on the patches [3, P], and of the patches on the segments [3, S];
        each row sums to 1.
    """
    layers = (maps.basic, maps.pattern, maps.action)
    return (
        torch.stack([layer.motion_to_semantic[0].mean(dim=(0, 1)) for layer in layers]),
        torch.stack([layer.semantic_to_motion[0].mean(dim=(0, 1)) for layer in layers]),
    )


def overlay_patches(
    ax: Axes,
    frame: Tensor,
    values: Tensor,
    colorbar: str | None = None,
    *,
    limits: tuple[float, float] | None = None,
):
    """A value per patch as a heat map over the frame.

    A patch is the more opaque the further its value lies above the mean of all, which the colour
    bar marks; at or below the mean the frame shows through. So the picture stays to be seen under
    even attention.

    Args:
        ax: Where to draw.
        frame: [3, H, W].
        values: [rows, columns].
        colorbar: Its label; None: no colour bar.
        limits: Values of the colour scale's ends; by default 0 and the largest value.

    Returns:
        The drawn heat map.
    """
    rows, columns = values.shape
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    grey = frame.detach().float().mean(dim=0).cpu().numpy()
    ax.imshow(grey, cmap="gray", extent=extent, interpolation="bilinear", vmin=0, vmax=1)
    low, high = limits or (0.0, float(values.max()))
    values = values.detach().float().cpu().numpy()
    mean = float(values.mean())
    share = ((values - mean) / max(high - mean, 1e-12)).clip(0, 1)
    heat = ax.imshow(
        values,
        cmap=HEAT,
        extent=extent,
        alpha=0.8 * share,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set(xticks=[], yticks=[])
    if colorbar is not None:
        bar = ax.figure.colorbar(heat, ax=ax, shrink=0.8, pad=0.02)
        bar.set_label(colorbar, fontsize="small")
        bar.ax.axhline(mean, color="white", lw=1.5)
    return heat


def draw_film_strip(ax: Axes, clip: Tensor, num_segments: int) -> Axes:
    """The middle frame of each segment, side by side, at the x positions 0 to S - 1."""
    shown = segment_indices(len(clip), num_segments)
    aspect = clip.size(-2) / clip.size(-1)
    for position, index in enumerate(shown.tolist()):
        picture = clip[index].detach().float().cpu().permute(1, 2, 0).clamp(0, 1).numpy()
        box = (position - 0.47, position + 0.47, 0.94 * aspect, 0.0)
        ax.imshow(picture, extent=box, interpolation="bilinear")
    ax.set(xlim=(-0.5, num_segments - 0.5), ylim=(0.94 * aspect, 0), aspect="equal")
    ax.set_axis_off()
    return ax


def _draw_segment_matrix(ax: Axes, temporal: Data) -> None:
    # Where no edge is, there is no attention to show: the background, not the colour of zero.
    matrix = torch.full((temporal.num_nodes, temporal.num_nodes), torch.nan)
    ax.set_facecolor("#dddddd")
    source, target = temporal.edge_index.cpu()
    matrix[target, source] = temporal.attention.mean(dim=1).float().cpu()
    heat = ax.imshow(matrix.numpy(), cmap=HEAT, vmin=0)
    ax.set(xlabel="attended segment", ylabel="segment", title="")
    ax.set_xticks(range(temporal.num_nodes))
    ax.set_yticks(range(temporal.num_nodes))
    ax.tick_params(labelsize="small")
    bar = ax.figure.colorbar(heat, ax=ax, shrink=0.9)
    bar.set_label("attention (mean of heads)", fontsize="small")


@torch.no_grad()
def _run(model: TemporalCrossAttentionModel, clip: Tensor) -> tuple[str, GASMCASTAttention]:
    """The prediction as a title, and the attention. In training mode dropout would be in it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        logits, maps = model(clip.unsqueeze(0), return_attention=True)
    finally:
        for module, training in modes:
            module.training = training
    probability, label = logits.softmax(dim=1)[0].max(dim=0)
    name = model.class_names[label] if model.class_names else f"class {int(label)}"
    name = name.replace("$", r"\$")  # matplotlib would set what stands between two as mathematics
    return f"{name}  ({float(probability):.0%})", maps


def _figure(figsize: tuple[float, float]) -> Figure:
    # Not through pyplot: nothing global is kept, and it works without a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _check_save_path(save_path: str | PathLike | None) -> None:
    if save_path is None:
        return
    path = Path(save_path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: its folder {path.parent} is not there")
    known = _figure((1, 1)).canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise ValueError(
            f"cannot write a picture as {path.suffix!r} ({path}): expected one of "
            f"{', '.join(sorted(known))}"
        )


def _save(figure: Figure, save_path: str | PathLike | None) -> Figure:
    if save_path is not None:
        figure.savefig(save_path, dpi=150)
    return figure
