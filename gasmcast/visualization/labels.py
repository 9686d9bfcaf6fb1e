"""Text that came from outside, such as the name of a class, as matplotlib can draw it."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

NO_GLYPH = "\N{WHITE SQUARE}"


def plain_label(text: str, most: int = 50) -> str:
    r"""A name as one line of plain text.

    Line breaks and tabs become spaces, signs that steer the direction of writing go, signs that no
    font in use has become a square, a long name loses its middle, and dollars are escaped, for
    matplotlib sets what stands between two of them as mathematics.

    Args:
        text: Anything.
        most: Signs to keep, at least 3.

    >>> plain_label("picking up\na $5 note")
    'picking up a \\$5 note'
    >>> plain_label("pretending to put a cup on a table", most=24)
    'pretending t… on a table'
    """
    drawable = _drawable(_families())
    signs = (sign for sign in " ".join(text.split()) if unicodedata.category(sign) != "Cf")
    shown = "".join(sign if ord(sign) in drawable else NO_GLYPH for sign in signs)
    if len(shown) > most:
        last = (most - 1) // 2
        shown = f"{shown[: most - 1 - last]}…{shown[len(shown) - last :]}"
    return shown.replace("$", r"\$")


def _families() -> tuple[str, ...]:
    from matplotlib.font_manager import FontProperties

    return tuple(FontProperties().get_family())


@lru_cache
def _drawable(families: tuple[str, ...]) -> frozenset[int]:
    """Signs of the fonts that matplotlib takes one after the other."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = (findfont(FontProperties(family=[family])) for family in families)
    return frozenset(sign for font in fonts for sign in get_font(font).get_charmap())
