import pytest
import torch
from matplotlib.figure import Figure

from gasmcast import visualize_cross_attention_layers, visualize_graph_attention
from gasmcast.visualization import draw_film_strip
from small import IMAGE_SIZE, small_model

NUM_FRAMES = 17  # an odd number has one middle
MIDDLE = 8
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
    model, clip = small_model().eval(), counting_clip()
    return {
        "layers": visualize_cross_attention_layers(model, clip),
        "graphs": visualize_graph_attention(model, clip),
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
    draw_film_strip(ax, counting_clip(num_frames, (6, 10)), num_segments)
    assert [shown_frame(image) for image in ax.images] == middles
    for position, image in enumerate(ax.images):  # from left to right, each at its segment
        left, right, *_ = image.get_extent()
        assert position - 0.5 < left < position < right < position + 0.5


def test_every_layer_stands_over_the_whole_film(columns):
    for _, film, _ in columns:
        assert [shown_frame(image) for image in film.images] == SEGMENT_MIDDLES


def test_heat_maps_lie_over_the_middle_frame(figures, columns):
    for heat, *_ in columns:
        assert shown_frame(heat.images[0]) == MIDDLE
    axes = figures["graphs"].axes
    for beginning in ("spatial graph", "graph attention"):
        assert shown_frame(axes[titled(figures["graphs"], beginning)].images[0]) == MIDDLE


def test_the_frame_is_drawn_as_bright_as_it_is(figures, columns):
    for ax in (columns[0][0], figures["graphs"].axes[titled(figures["graphs"], "graph attention")]):
        assert ax.images[0].get_clim() == (0, 1)


def test_the_layers_have_one_scale(columns):
    largest = [float(heat.images[1].get_array().max()) for heat, *_ in columns]
    assert len(set(largest)) == 3  # else scales of their own would look the same
    for heat, *_ in columns:
        assert heat.images[1].get_clim() == pytest.approx((0, max(largest)))
    limits = {bars.get_ylim() for *_, bars in columns}
    assert len(limits) == 1
    low, high = limits.pop()
    tallest = [max(bar.get_height() for bar in bars.patches) for *_, bars in columns]
    assert low == 0
    assert max(tallest) < high < 1.5 * max(tallest)
