"""The colors of the arms hold on white and on black, and for color-blind eyes."""

import tomllib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from bnlab.figures import style

SEEN_BY = {  # of linear red, green and blue: Machado, Oliveira and Fernandes 2009, severity 1
    "most": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65


def linear(color):
    c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def cielab(rgb):
    x, y, z = np.cbrt(TO_XYZ @ rgb / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_and_marks_stand_out_from_the_page(theme):
    """WCAG 1.4.11: a contrast of 3 at least."""
    config = tomllib.loads((Path(__file__).parent.parent / ".streamlit/config.toml").read_text())["theme"][theme]
    back, *colors = (TO_XYZ[1] @ linear(c) + 0.05 for c in (config["backgroundColor"], *style.COLORS, style.GRAY))
    assert min(max(c, back) / min(c, back) for c in colors) > 3


@pytest.mark.parametrize("who", SEEN_BY)
def test_colors_of_arms_are_told_apart(who):
    """By 10 steps in CIELAB at least, of which one is just noticed; dashes and marks say the same once more."""
    seen = [cielab(np.clip(np.array(SEEN_BY[who]) @ linear(color), 1e-3, 1)) for color in style.COLORS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 10
