import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from gasmcast.visualization import draw_film_strip, draw_segment_bars, overlay_patches

FRAME = torch.linspace(0, 1, 12 * 12).view(1, 12, 12).repeat(3, 1, 1)


@pytest.fixture
def ax():
    return Figure().add_subplot()


def colors(heat) -> torch.Tensor:
    """Red, green, blue and opacity of each patch."""
    return torch.from_numpy(heat.to_rgba(heat.get_array()))


def test_the_overlay_is_the_values_over_a_grey_frame(ax):
    values = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.9]])
    before = values.clone()
    heat = overlay_patches(ax, FRAME, values)
    assert torch.equal(torch.from_numpy(heat.get_array().data), before)
    assert torch.equal(values, before)
    grey, drawn = ax.images
    assert drawn is heat
    assert torch.allclose(torch.from_numpy(grey.get_array().data), FRAME[0])
    assert tuple(heat.get_extent()) == tuple(grey.get_extent()) == (-0.5, 2.5, 1.5, -0.5)
    assert heat.get_clim() == pytest.approx((0, 0.9))


def test_the_more_above_the_mean_the_more_opaque(ax):
    opaque = colors(overlay_patches(ax, FRAME, torch.tensor([[0.0, 0.3, 0.4, 0.5, 0.8]])))[0, :, 3]
    assert opaque[:3].tolist() == pytest.approx([0, 0, 0], abs=0.07)  # the mean is 0.4
    assert opaque[2] < opaque[3] < opaque[4]
    assert opaque[4] == pytest.approx(0.85)


def test_all_but_even_values_look_all_but_even(ax):
    values = torch.tensor([[0.24, 0.25, 0.26, 0.25]])
    heat = overlay_patches(ax, FRAME, values)
    assert heat.get_clim() == pytest.approx((0, 0.5))
    assert colors(heat)[..., 3].max() < 0.3
    assert overlay_patches(ax, FRAME, torch.zeros(2, 2)).get_clim() == (0, 1)


def test_signed_values_have_zero_in_the_middle(ax):
    values = torch.tensor([[-0.4, -0.1, 0.0, 0.1, 0.2]])
    heat = overlay_patches(ax, FRAME, values, signed=True)
    assert heat.get_clim() == pytest.approx((-0.4, 0.4))
    red, _, blue, opaque = colors(heat)[0].unbind(dim=1)
    assert opaque[2] == 0
    assert float(opaque[1]) == pytest.approx(float(opaque[3]), abs=0.02)
    assert (blue > red)[:2].all()
    assert (red > blue)[3:].all()
    assert overlay_patches(ax, FRAME, values.abs(), signed=True).get_clim() == heat.get_clim()
    assert overlay_patches(ax, FRAME, torch.zeros(2, 2), signed=True).get_clim() == (-1, 1)


def test_limits_put_several_on_one_scale(ax):
    heat = overlay_patches(ax, FRAME, torch.rand(3, 3), limits=(0, 2))
    assert heat.get_clim() == (0, 2)


@pytest.mark.parametrize("signed", [False, True])
def test_the_colour_bar_shows_the_colours_that_are_seen(signed):
    """Over a black and over a white frame: its left edge and its right."""
    values = torch.tensor([[0.0, 0.5, 1.5, 2.0]])
    for brightness, edge in ((0.0, 0.01), (1.0, 0.99)):
        figure = Figure(figsize=(6, 4), dpi=100)
        canvas = FigureCanvasAgg(figure)
        ax = figure.add_subplot()
        frame = torch.full((3, 8, 8), brightness)
        overlay_patches(ax, frame, values, "attention", signed=signed)
        (bar,) = (other for other in figure.axes if other is not ax)
        assert bar.get_ylabel() == "attention"
        bar.spines[:].set_visible(False)
        ax.spines[:].set_visible(False)
        canvas.draw()
        pixels = torch.from_numpy(np.array(canvas.buffer_rgba())).float()[..., :3]

        def seen(axes, x, y, pixels=pixels):
            column, row = axes.transData.transform((x, y))
            return pixels[len(pixels) - 1 - int(row), int(column)]

        for patch, value in enumerate(values[0].tolist()):
            if 0 < value < 2:
                difference = seen(ax, patch, 0) - seen(bar, edge, value)
                assert difference.abs().max() < 8, (patch, value)


def test_bars_are_the_values(ax):
    values = torch.tensor([0.1, 0.4, 0.2, 0.3])
    bars = draw_segment_bars(ax, values)
    assert [bar.get_height() for bar in bars] == pytest.approx(values.tolist())
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([0, 1, 2, 3])
    assert ax.get_xlim() == (-0.5, 3.5)  # as the film strip
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 0.4
    (mean,) = ax.lines
    assert list(mean.get_ydata()) == pytest.approx([0.25, 0.25])
    draw_segment_bars(ax, values, limits=(0, 7))
    assert ax.get_ylim() == (0, 7)


def test_signed_bars_rise_and_hang(ax):
    bars = draw_segment_bars(ax, torch.tensor([0.2, -0.1]), signed=True)
    assert [bar.get_height() for bar in bars] == pytest.approx([0.2, -0.1])
    assert ax.get_ylim()[0] < -0.1
    (red, _, blue, _), (other_red, _, other_blue, _) = (
        to_rgba(bar.get_facecolor()) for bar in bars
    )
    assert red > blue
    assert other_blue > other_red
    (zero,) = ax.lines
    assert list(zero.get_ydata()) == [0, 0]


def test_wrong_input_is_named(ax):
    nan, frame = torch.tensor([[0.0, torch.nan]]), FRAME
    for call, message in [
        (lambda: overlay_patches(ax, frame[0], nan), r"frame must be .* \[3, H, W\], got \[12, 12"),
        (lambda: overlay_patches(ax, None, nan), "frame must be a tensor .* got NoneType"),
        (
            lambda: overlay_patches(ax, frame, nan[0]),
            r"values must be .*rows, columns\], got \[2\]",
        ),
        (lambda: overlay_patches(ax, frame, nan), "values must be finite, got nan"),
        (lambda: overlay_patches(ax, frame, -nan[:, :1] - 1), "below 0 need signed=True, got -1"),
        (lambda: draw_segment_bars(ax, nan), r"values must be a tensor \[S\], got \[1, 2\]"),
        (lambda: draw_segment_bars(ax, nan[0]), "values must be finite, got nan"),
        (lambda: draw_segment_bars(ax, nan[0, :1] - 2), "below 0 need signed=True, got -2"),
        (lambda: draw_film_strip(ax, frame, 4), r"clip must be .*T, 3, H, W\], got \[3, 12, 12\]"),
        (lambda: draw_film_strip(ax, frame[None], 0), "num_segments must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert not ax.images
