from itertools import pairwise

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gasmcast import (
    inspect_clip,
    visualize_class_evidence,
    visualize_cross_attention_layers,
    visualize_graph_attention,
)
from gasmcast.visualization import draw_film_strip
from small import IMAGE_SIZE, small_model

NUM_FRAMES = 17  # an odd number has one middle
SEEN = 12  # of 17 frames the extractor takes 4 and 12
SEGMENT_MIDDLES = list(range(0, 17, 2))  # of nine segments, 17 / 9 frames each


def counting_clip(num_frames=NUM_FRAMES, size=(IMAGE_SIZE, IMAGE_SIZE)):
    """Frame k is evenly grey: k / 20."""
    return (torch.arange(float(num_frames)) / 20)[:, None, None, None].repeat(1, 3, *size)


def shown_frame(image) -> int:
    """The number of the frame of a counting clip that a drawn image holds."""
    picture = torch.as_tensor(image.get_array().data)
    assert picture.min() == picture.max()
    return round(float(picture.max()) * 20)


def titled(figure, beginning):
    (index,) = (i for i, ax in enumerate(figure.axes) if ax.get_title().startswith(beginning))
    return index


@pytest.fixture(scope="module")
def figures():
    torch.manual_seed(0)
    seen = inspect_clip(small_model(), counting_clip())
    return {
        "layers": visualize_cross_attention_layers(None, seen),
        "graphs": visualize_graph_attention(None, seen),
        "evidence": visualize_class_evidence(None, seen),
    }


@pytest.fixture(scope="module")
def columns(figures):
    """Heat map, film strip and bars of each layer."""
    axes = figures["layers"].axes
    starts = [titled(figures["layers"], f"layer {layer}") for layer in (1, 2, 3)]
    return [axes[start : start + 3] for start in starts]


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "middles"),
    [(16, 4, [2, 6, 10, 14]), (9, 3, [1, 4, 7]), (10, 1, [5]), (2, 4, [0, 0, 1, 1])],
)
def test_film_strip_shows_the_middle_frame_of_each_segment(num_frames, num_segments, middles):
    ax = Figure().add_subplot()
    draw_film_strip(counting_clip(num_frames, (6, 10)), num_segments, ax)
    assert [shown_frame(image) for image in ax.images] == middles
    for position, image in enumerate(ax.images):  # from left to right, each at its segment
        left, right, *_ = image.get_extent()
        assert position - 0.5 < left < position < right < position + 0.5


def test_every_layer_stands_over_the_whole_film(columns):
    for _, film, _ in columns:
        assert [shown_frame(image) for image in film.images] == SEGMENT_MIDDLES


def test_heat_maps_lie_over_a_frame_that_the_patches_come_from(figures, columns):
    for heat, *_ in columns:
        assert shown_frame(heat.images[0]) == SEEN
    axes = figures["graphs"].axes
    for beginning in ("patches: ", "attention along edges\n", "attention received"):
        assert shown_frame(axes[titled(figures["graphs"], beginning)].images[0]) == SEEN
    (over,) = (ax for ax in figures["evidence"].axes if ax.get_title().startswith("patches"))
    assert shown_frame(over.images[0]) == SEEN


def test_the_frame_is_drawn_as_bright_as_it_is(figures, columns):
    graphs = figures["graphs"]
    for beginning in ("attention along edges\n", "attention received"):
        assert graphs.axes[titled(graphs, beginning)].images[0].get_clim() == (0, 1)
    assert columns[0][0].images[0].get_clim() == (0, 1)


def test_the_layers_have_one_scale(columns):
    largest = [float(heat.images[1].get_array().max()) for heat, *_ in columns]
    assert len(set(largest)) == 3  # else scales of their own would look the same
    for heat, *_ in columns:
        # At least twice what uniform attention gives, so that nearly uniform attention looks it.
        assert heat.images[1].get_clim() == pytest.approx((0, max(*largest, 2 / 16)))
    limits = {bars.get_ylim() for *_, bars in columns}
    assert len(limits) == 1
    low, high = limits.pop()
    tallest = [max(bar.get_height() for bar in bars.patches) for *_, bars in columns]
    assert low == 0
    assert max(tallest) < high < 1.5 * max(tallest)


def middles(ax, places) -> list[float]:
    """Where places on the x axis come to lie, in pixels."""
    return [ax.transData.transform((place, 0))[0] for place in places]


def test_frames_stand_over_their_bars_and_nodes(figures):
    films = 0
    for figure in figures.values():
        figure.draw_without_rendering()
        axes = figure.axes
        for film, below in pairwise(axes):
            if len(film.images) == 9:
                films += 1
                over = middles(film, [sum(im.get_extent()[:2]) / 2 for im in film.images])
                if below.patches:
                    stands = [bar.get_x() + bar.get_width() / 2 for bar in below.patches]
                else:
                    stands = below.collections[-1].get_offsets()[:, 0]
                assert over == pytest.approx(middles(below, stands), abs=1.0)
                assert film.get_window_extent().y0 > below.get_window_extent().y1
    assert films == 6  # three layers, two temporal graphs, evidence


def test_the_graph_figure_is_balanced(figures):
    figure = figures["graphs"]
    figure.draw_without_rendering()
    top = [ax.get_window_extent() for ax in figure.axes[:3]]
    below = [ax.get_window_extent() for ax in (figure.axes[4], figure.axes[6], figure.axes[7])]
    for box in top[1:]:
        assert (box.y0, box.y1, box.width) == pytest.approx((top[0].y0, top[0].y1, top[0].width))
    for over, under in zip(top, below, strict=True):
        assert over.x0 == pytest.approx(under.x0, abs=0.02 * figure.bbox.width)
        assert over.x1 == pytest.approx(under.x1, abs=0.02 * figure.bbox.width)


@pytest.mark.parametrize("num_frames", [4, 8, 64])  # two, four and 32 segments
def test_frames_stand_over_their_nodes_however_many_there_are(num_frames):
    torch.manual_seed(0)
    frames = torch.rand(num_frames, 3, IMAGE_SIZE, IMAGE_SIZE)
    seen = inspect_clip(small_model(num_frames=num_frames), frames)
    segments = seen.temporal.num_nodes
    for draw in (
        visualize_graph_attention,
        visualize_cross_attention_layers,
        visualize_class_evidence,
    ):
        figure = draw(None, seen)
        figure.draw_without_rendering()
        films = [place for place, ax in enumerate(figure.axes) if ax.images and not ax.axison]
        for place in films:
            film, below = figure.axes[place : place + 2]
            centers = [sum(image.get_extent()[:2]) / 2 for image in film.images]
            # Within a sixth of a segment.
            near = below.get_window_extent().width / segments / 6
            assert middles(film, centers) == pytest.approx(
                middles(below, range(segments)), abs=near
            )
            assert len(below.get_xticks()) <= 16


def test_no_text_lies_on_another(figures):
    for figure in figures.values():
        figure.draw_without_rendering()
        renderer = FigureCanvasAgg(figure).get_renderer()
        texts = [*figure.texts, *(text for ax in figure.axes for text in said(ax))]
        boxes = [text.get_window_extent(renderer) for text in texts if text.get_text().strip()]
        for number, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width
            for other in boxes[:number]:
                assert not box.overlaps(other)


def said(ax):
    labels = []
    for axis, place in ((ax.xaxis, 0), (ax.yaxis, 1)):
        low, high = sorted(axis.get_view_interval())
        ticks = axis.get_ticklabels() if ax.axison else []
        labels += [tick for tick in ticks if low <= tick.get_position()[place] <= high]
    legend = ax.get_legend()
    inside = [] if legend is None else legend.get_texts()
    return [ax.title, ax.xaxis.label, ax.yaxis.label, *labels, *ax.texts, *inside]
