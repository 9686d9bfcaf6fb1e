import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from gasmcast.visualization import draw_film_strip, draw_segment_bars, overlay_patches
from gasmcast.visualization.panels import add_overlay_bar

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
    heat = overlay_patches(FRAME, values, ax)
    assert torch.equal(torch.from_numpy(heat.get_array().data), before)
    assert torch.equal(values, before)
    grey, drawn = ax.images
    assert drawn is heat
    assert torch.allclose(torch.from_numpy(grey.get_array().data), FRAME[0])
    assert tuple(heat.get_extent()) == tuple(grey.get_extent()) == (-0.5, 2.5, 1.5, -0.5)
    assert heat.get_clim() == pytest.approx((0, 0.9))


def test_the_more_above_the_mean_the_more_opaque(ax):
    opaque = colors(overlay_patches(FRAME, torch.tensor([[0.0, 0.3, 0.4, 0.5, 0.8]]), ax))[0, :, 3]
    assert opaque[:3].tolist() == pytest.approx([0, 0, 0], abs=0.07)  # the mean is 0.4
    assert opaque[2] < opaque[3] < opaque[4]
    assert opaque[4] == pytest.approx(0.85)


def test_nearly_uniform_values_look_nearly_uniform(ax):
    values = torch.tensor([[0.24, 0.25, 0.26, 0.25]])
    heat = overlay_patches(FRAME, values, ax)
    assert heat.get_clim() == pytest.approx((0, 0.5))
    assert colors(heat)[..., 3].max() < 0.3
    assert overlay_patches(FRAME, torch.zeros(2, 2), ax).get_clim() == (0, 1)


def test_bytes_are_drawn_as_bright_as_floats():
    clip = torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8)
    grey, same = (
        overlay_patches(frame, torch.rand(2, 2)).axes.images[0]
        for frame in (clip[0], clip[0] / 255)
    )
    assert np.allclose(grey.get_array(), same.get_array())
    assert grey.get_clim() == (0, 1)
    for one, other in zip(draw_film_strip(clip, 2), draw_film_strip(clip / 255, 2), strict=True):
        assert np.allclose(one.get_array(), other.get_array())


def test_a_new_figure_is_made_where_no_axes_are_given():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    heat = overlay_patches(FRAME, torch.rand(2, 2), colorbar="attention")
    frames = draw_film_strip(FRAME[None], 3)
    bars = draw_segment_bars(torch.rand(3))
    figures = {heat.axes.figure, frames[0].axes.figure, bars[0].axes.figure}
    assert len(figures) == 3
    assert plt.get_fignums() == before


def test_signed_values_have_zero_in_the_middle(ax):
    values = torch.tensor([[-0.4, -0.1, 0.0, 0.1, 0.2]])
    heat = overlay_patches(FRAME, values, ax, signed=True)
    assert heat.get_clim() == pytest.approx((-0.4, 0.4))
    red, _, blue, opaque = colors(heat)[0].unbind(dim=1)
    assert opaque[2] == 0
    assert float(opaque[1]) == pytest.approx(float(opaque[3]), abs=0.02)
    assert (blue > red)[:2].all()
    assert (red > blue)[3:].all()
    assert overlay_patches(FRAME, values.abs(), ax, signed=True).get_clim() == heat.get_clim()
    assert overlay_patches(FRAME, torch.zeros(2, 2), ax, signed=True).get_clim() == (-1, 1)


def test_limits_put_several_on_one_scale(ax):
    heat = overlay_patches(FRAME, torch.rand(3, 3), ax, limits=(0, 2))
    assert heat.get_clim() == (0, 2)


@pytest.mark.parametrize("signed", [False, True])
def test_the_colour_bar_shows_the_colours_that_are_seen(signed):
    """Over a black and over a white frame: its left edge and its right."""
    values = torch.tensor([[0.0, 0.5, 1.5, 2.0]])
    for brightness, edge, points_below in (
        *((0.0, 0.01, None), (1.0, 0.99, None)),
        *((0.0, 0.02, 20), (1.0, 0.97, 20)),  # its lower edge and its upper
    ):
        figure = Figure(figsize=(6, 4), dpi=100 if points_below is None else 500)  # a thin bar
        canvas = FigureCanvasAgg(figure)
        ax = figure.add_subplot()
        frame = torch.full((3, 8, 8), brightness)
        heat = overlay_patches(frame, values, ax, signed=signed)
        place = {} if points_below is None else {"points_below": points_below}
        bare = 0.0 if signed else float(values.mean())
        bar = add_overlay_bar(heat, ax, "attention", bare, **place).ax
        assert (bar.get_xlabel() if place else bar.get_ylabel()) == "attention"
        (mark,) = bar.lines[-1:]
        assert (mark.get_xdata() if place else mark.get_ydata())[0] == bare
        bar.spines[:].set_visible(False)
        ax.spines[:].set_visible(False)
        canvas.draw()
        pixels = torch.from_numpy(np.array(canvas.buffer_rgba())).float()[..., :3]

        def seen(axes, x, y, pixels=pixels):
            column, row = axes.transData.transform((x, y))
            return pixels[len(pixels) - 1 - int(row), int(column)]

        for patch, value in enumerate(values[0].tolist()):
            if 0 < value < 2:
                difference = seen(ax, patch, 0) - seen(
                    bar, *((value, edge) if place else (edge, value))
                )
                assert difference.abs().max() < (16 if place else 8), (patch, value)


def test_bars_are_the_values(ax):
    values = torch.tensor([0.1, 0.4, 0.2, 0.3])
    bars = draw_segment_bars(values, ax)
    assert [bar.get_height() for bar in bars] == pytest.approx(values.tolist())
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([0, 1, 2, 3])
    assert ax.get_xlim() == (-0.5, 3.5)  # as the film strip
    assert ax.get_ylim()[0] == 0
    assert ax.get_ylim()[1] > 0.4
    red, green, blue, _ = to_rgba(bars[0].get_facecolor())
    assert red == green == blue  # none of the colours of a scale
    (mean,) = ax.lines
    assert list(mean.get_ydata()) == pytest.approx([0.25, 0.25])
    draw_segment_bars(values, ax, limits=(0, 7))
    assert ax.get_ylim() == (0, 7)


def test_signed_bars_rise_and_hang(ax):
    bars = draw_segment_bars(torch.tensor([0.2, -0.1]), ax, signed=True)
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
        (lambda: overlay_patches(frame[0], nan, ax), r"frame must be .* \[3, H, W\], got \[12, 12"),
        (lambda: overlay_patches(None, nan, ax), "frame must be a tensor .* got NoneType"),
        (
            lambda: overlay_patches(frame, nan[0], ax),
            r"values must be .*rows, columns\], got \[2\]",
        ),
        (lambda: overlay_patches(frame, nan, ax), "values must be finite, got nan"),
        (lambda: overlay_patches(frame, -nan[:, :1] - 1, ax), "below 0 need signed=True, got -1"),
        (
            lambda: overlay_patches(frame, nan[:, :1], ax, limits=(1, 0)),
            r"limits must be the lower and the higher end, got \(1, 0\)",
        ),
        (lambda: draw_segment_bars(nan[0, :1], ax, limits=(1, 1)), "limits must be .* got"),
        (lambda: draw_segment_bars(nan, ax), r"values must be a tensor \[S\], got \[1, 2\]"),
        (lambda: draw_segment_bars(nan[0], ax), "values must be finite, got nan"),
        (lambda: draw_segment_bars(nan[0, :1] - 2, ax), "below 0 need signed=True, got -2"),
        (lambda: draw_film_strip(frame, 4, ax), r"clip must be .*T, 3, H, W\], got \[3, 12, 12\]"),
        (lambda: draw_film_strip(frame[None], 0, ax), "num_segments must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert not ax.images
