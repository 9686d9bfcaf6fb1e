import warnings

import pytest

from gasmcast.visualization.canvas import new_figure
from gasmcast.visualization.labels import plain_label

ODD = {
    "$x_1$ and $y$": r"\$x_1\$ and \$y\$",
    r"costs $\frac{": r"costs \$\frac{",
    "two\nlines\tand  spaces ": "two lines and spaces",
    "catching \N{BASEBALL}": "catching □",
    "\N{RIGHT-TO-LEFT OVERRIDE}left": "left",
    "שלום": "שלום",
    "a" * 30 + "b" * 30: "a" * 25 + "…" + "b" * 24,
    "$" * 60: r"\$" * 25 + "…" + r"\$" * 24,
    "": "",
    "_hidden": "_hidden",
    "\0null": "□null",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_names(name):
    assert plain_label(name) == ODD[name]
    figure = new_figure((4, 1))
    text = figure.text(0, 0, plain_label(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    assert "$" not in plain_label(name).replace(r"\$", "")
    assert text.get_text() == ODD[name]


def test_a_name_that_fits_stays_whole():
    assert plain_label("x" * 50) == "x" * 50
    assert plain_label("abcdef", 5) == "ab…ef"
    assert plain_label("abcdef", 4) == "ab…f"


def test_a_font_of_the_readers_choice_counts():
    from matplotlib import rc_context

    assert plain_label("\N{GREEK SMALL LETTER ALPHA}") == "α"
    with rc_context({"font.family": ["STIXSizeOneSym"]}):  # a font of brackets
        assert plain_label("(α)") == "(□)"
