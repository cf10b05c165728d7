"""The build of plotly that draws flat charts is of plotly's version and draws them all; the rest is the whole one's."""

import re
from pathlib import Path

import pytest
from looked_at import recorded, shown
from plotly.offline import get_plotlyjs_version

from bnlab import api, figures
from bnlab.data import DATASETS
from bnlab.figures.data import data
from bnlab.store import RunStore

BUILDS = (Path(__file__).parents[1] / "pages" / "parts" / "live" / "builds.js").read_text(encoding="utf-8")
FLAT = set(re.findall(r'"(\w+)"', re.search(r"DRAWN_FLAT = new Set\((.*?)\);", BUILDS)[1]))


def draws(name: str) -> set[str]:
    """The kinds of traces that a build registers."""
    script = api.PLOTLY[name].read_text(encoding="utf-8")
    return set(re.findall(r'moduleType:"trace",name:"(\w+)"', script))


@pytest.mark.parametrize("name", api.PLOTLY)
def test_every_build_is_of_the_version_that_makes_the_figures(name):
    with open(api.PLOTLY[name], encoding="utf-8") as file:
        head = file.read(200)
    assert re.search(r"plotly\.js .*\bv([\d.]+)", head)[1] == get_plotlyjs_version()


def test_its_license_lies_beside_it():
    text = (api.PLOTLY["plotly-cartesian.min.js"].parent / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License") and "Plotly" in text


def test_what_is_left_to_the_flat_build_it_can_draw():
    flat, whole = draws("plotly-cartesian.min.js"), draws("plotly.min.js")
    assert FLAT <= flat < whole and {"surface", "scatter3d"} <= whole - flat


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """The trace of a run of which every figure has something to draw."""
    arms = ({}, {"norm": "batch"}, {"norm": "batch", "learning_rate": 0.2}, {"norm": "layer"})
    return recorded(RunStore(tmp_path_factory.mktemp("store")), arms, depth=3)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_only_the_solid_surface_needs_the_whole_of_plotly(trace, name):
    choices = [{o.name: chosen} for o in figures.FIGURES[name].options for chosen in o.choices]
    for options in [{}, *choices]:
        kinds = {drawn.type for drawn in shown(trace, name, **options).data}
        assert kinds, f"{name} with {options} draws nothing"
        if options == {"look": "surface"}:
            assert kinds == {"surface", "scatter3d"}
        else:
            assert kinds <= FLAT, f"{name} with {options} makes every visitor load the whole"


@pytest.mark.parametrize("name", DATASETS)
def test_no_preview_needs_the_whole_of_plotly(name):
    assert {drawn.type for drawn in data(name, True).data} <= FLAT
