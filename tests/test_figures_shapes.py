"""Arms of different depth or width are drawn where the page's own sliders stand; who lacks the layer is named."""

from itertools import product

import numpy as np
import pytest
from looked_at import recorded, seen, shown, trained

from bnlab import Arm, Settings, figures
from bnlab.figures import FIGURES
from bnlab.figures.options import first_layer

BOTH, FIRST, LAST = ("batch", "batch"), ("batch", "none"), ("none", "batch")
SHAPES = {
    "deep first": ("depth", (6, 2), BOTH),
    "deep last": ("depth", (2, 6), BOTH),
    "wide first": ("width", (8, 4), BOTH),
    "wide last": ("width", (4, 8), BOTH),
    "norm last": ("depth", (6, 2), LAST),
    "norm first": ("width", (4, 8), FIRST),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of two arms of these shapes and norms: their store and their id."""
    settings = Settings(depth=3, width=6, steps=12, data="wine", batch_size=16, score_every=4)
    found = {}
    for shape, (what, sizes, norms) in SHAPES.items():
        arms = (Arm(label=f"{what} {n}", changes={what: n, "norm": norm}) for n, norm in zip(sizes, norms, strict=True))
        found[shape] = trained(tmp_path_factory.mktemp("store"), settings, tuple(arms))
    return found


def sliders(name: str, run, place: int = 0) -> dict[str, str]:
    """What the page asks of a figure before anybody moves its sliders, or with all of them at their end."""
    experiment, options = run.experiment, {option.name: option for option in FIGURES[name].options}
    most = {
        "layer": max(s.depth for s in experiment.arm_settings),
        "unit": max(s.width for s in experiment.arm_settings),
    }
    start = {"layer": lambda: first_layer(options["layer"], most["layer"]), "unit": lambda: 1}
    return {kind: str(most[kind] if place else start[kind]()) for kind in most if kind in options}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_is_drawn_where_the_sliders_stand(runs, shape, name):
    store, run_id = runs[shape]
    arms = ("0", "1") if "arm" in {option.name for option in FIGURES[name].options} else (None,)
    overs = ("layers", "arms") if name == "histograms" else (None,)
    for place, arm, over in product((0, 1), arms, overs):
        query = sliders(name, store.run(run_id), place) | {k: v for k, v in (("arm", arm), ("over", over)) if v}
        meta = seen(store, run_id, name, query).layout.meta
        normed = "no batch norm" in meta.get("said", "")
        assert meta["note"] or normed or name == "learning_rates", (query, meta)


LEFT = " has 2 layers and is left out"


@pytest.mark.parametrize("shape", ["deep first", "deep last"])
@pytest.mark.parametrize(
    "name", ["distributions", "saturation", "invariance", "scale_over_time", "undone", "histograms"]
)
def test_an_arm_without_the_layer_is_left_out_by_name(runs, shape, name):
    over = {"over": "arms"} if name == "histograms" else {}
    few, many = (seen(*runs[shape], name, {"layer": layer} | over) for layer in ("2", "3"))
    assert LEFT not in few.layout.meta["note"]
    where = " of the lower charts." if name == "saturation" else "."
    assert f"depth 2{LEFT}{where}" in many.layout.meta["note"]
    if name != "saturation":  # whose upper charts have every arm
        assert len(many.data) < len(few.data)
    short = {len(line.y) for line in many.data if line.yaxis in ("y3", "y4") and line.name == "depth 2"}
    assert not short, "nothing over time"


@pytest.mark.parametrize("shape", ["deep first", "deep last"])
def test_an_arm_that_is_chosen_shows_its_nearest_layer_and_says_so(runs, shape):
    short = str(SHAPES[shape][1].index(2))
    drawn = seen(*runs[shape], "gamma_beta", {"arm": short, "layer": "5"})
    assert drawn.layout.yaxis.title.text == "γ of layer 2"
    assert drawn.layout.meta["note"].endswith(" depth 2 has 2 layers: layer 2 is shown.")
    deep = seen(*runs[shape], "gamma_beta", {"arm": str(1 - int(short)), "layer": "5"})
    assert deep.layout.yaxis.title.text == "γ of layer 5" and "is shown" not in deep.layout.meta["note"]


def test_an_arm_that_is_chosen_shows_its_nearest_unit_and_says_so(runs):
    drawn = seen(*runs["wide first"], "moving_averages", {"arm": "1", "unit": "7"})
    assert drawn.layout.yaxis.title.text == "μ of a, unit 4"
    assert drawn.layout.meta["note"].endswith(" width 4 has 4 units in a layer: unit 4 is shown.")


def test_what_no_arm_has_is_refused(runs):
    store, run_id = runs["deep last"]
    for name in ("saturation", "gamma_beta"):
        with pytest.raises(ValueError, match=r"^layer is 7; allowed is 1 to 6\.$"):
            figures.draw(name, store.trace(run_id), {"layer": "7", **({"arm": "0"} if name == "gamma_beta" else {})})


def test_the_norm_is_undone_in_the_highest_layer_that_has_one(runs):
    note = seen(*runs["norm last"], "undone", {"layer": "6"}).layout.meta["note"]
    assert ": in layer 2 γ" in note and "No arm with batch norm has more layers than 2: layer 2 is shown." in note


def test_ticks_of_layers_are_whole_in_the_panel_of_every_arm(store):
    """The ticks of 20 layers left an arm of 3 with 0.5, 1, 1.5, ..."""
    trace = recorded(store, ({"depth": 3}, {"depth": 20}), steps=4)
    panels = figures.draw("gradient_heatmap", trace, {}).select_yaxes()
    assert [axis.dtick for axis in panels] == [1, None], "of many layers plotly's choice is whole"


def test_the_loss_surface_begins_with_two_arms_that_last(store):
    lost = {"learning_rate": 100.0, "weight_decay": 1.0}  # a factor of -99 a step
    trace = recorded(store, ({}, lost, {"norm": "batch"}), steps=40)
    assert {arm for arm, _ in trace.diverged} == {1}
    titles = [words.text for words in shown(trace, "surface").layout.annotations]
    assert titles == ["arm 0", "arm 2"]
    assert [words.text for words in shown(trace, "surface", beside="1").layout.annotations] == [
        "arm 0",
        "arm 1: diverged",
    ]


@pytest.mark.parametrize("name", ["jacobians", "spectra", "conditions"])
def test_an_arm_of_one_layer_takes_the_jacobians_of_no_other(store, name):
    trace = recorded(store, ({"depth": 1}, {"depth": 4}, {"depth": 3, "norm": "batch"}), steps=4)
    drawn = shown(trace, name)
    assert {t.name for t in drawn.data if t.mode == "lines+markers"} >= {"arm 1", "arm 2"}
    assert "arm 0 has 1 layer and is left out." in drawn.layout.meta["note"]
    assert "not finite" not in drawn.layout.meta["note"]


SHALLOW = {
    "jacobians": "need 2 or more",
    "spectra": "need 2 or more",
    "conditions": "need 2 or more",
    "covariate_shift": "no arm here has more than one layer",
    "dials": "no arm here has more than one layer",
}


@pytest.mark.parametrize("name", SHALLOW)
def test_where_every_arm_has_one_layer_a_figure_of_several_says_so_and_draws_no_empty_axes(store, name):
    trace = recorded(store, ({"depth": 1}, {"depth": 1, "norm": "batch"}), steps=4)
    said = shown(trace, name).layout.meta["said"]
    assert SHALLOW[name] in said and said.endswith("Raise depth.")


@pytest.mark.parametrize("name", ["surface", "spectra", "gradient_heatmap", "distributions"])
def test_two_lines_of_a_long_label_fit_above_its_panel(tmp_path, name):
    """Of plotly's own 16 pixels the upper one was cut off."""
    long = ("a label of forty characters, with words!", "one more of as many characters, as well.")
    arms = tuple(Arm(label=label, changes={}) for label in long)
    run = trained(tmp_path, Settings(depth=3, width=6, data="wine", batch_size=16, steps=4), arms)
    drawn = seen(*run, name)
    titles = [words for words in drawn.layout.annotations if "<br>" in words.text]
    room = drawn.layout.template.layout.margin.t
    assert titles and all(2 * 1.3 * words.font.size < room for words in titles)


@pytest.mark.parametrize("name", ["outlier", "alone"])
def test_the_axis_of_bars_has_its_title_in_lines_that_fit_beside_long_names(store, name):
    for data in ("wine", "diabetes"):
        drawn = shown(recorded(store, ({"norm": "batch"},), data=data, steps=4), name)
        assert max(map(len, drawn.layout.xaxis.title.text.split("<br>"))) < 25


def test_arms_of_one_layer_are_left_out_of_the_covariate_shift_by_name(store):
    trace = recorded(store, ({"depth": 1}, {"depth": 3}), steps=4)
    drawn = shown(trace, "covariate_shift")
    assert {t.name for t in drawn.data if t.mode == "lines+markers"} == {"arm 1"}
    assert "arm 0 has 1 layer and is left out." in drawn.layout.meta["note"]


@pytest.mark.parametrize("name", ["outlier", "alone"])
def test_a_number_behind_the_longest_bar_has_room_beside_long_names(store, name):
    """They leave bars 140 of 390 pixels; five digits take about 30."""
    drawn = shown(recorded(store, ({}, {"norm": "batch"}), steps=4), name)
    bars, end = [bar for bar in drawn.data if bar.type == "bar"], drawn.layout.xaxis.range[1]
    longest = max(float(np.nanmax(bar.x)) for bar in bars)
    assert (end - max(longest, 1)) / end > 0.2


def test_beside_an_arm_that_alone_lasts_the_loss_surface_has_no_blank_half(store):
    trace = recorded(store, ({}, {"learning_rate": 100.0, "weight_decay": 1.0}), steps=40)
    drawn = shown(trace, "surface")
    assert [words.text for words in drawn.layout.annotations] == ["arm 0"]
    assert "arm 1 diverged at step" in drawn.layout.meta["note"]


@pytest.mark.parametrize(
    ("name", "words", "arms"),
    [
        ("dials", "Of no arm both", ({"depth": 3, "learning_rate": 100.0, "weight_decay": 1.0}, {"depth": 1})),
        ("covariate_shift", "No gradient changes.", ({"depth": 3, "learning_rate": 1e-30},)),
    ],
)
def test_panels_without_a_point_say_what_is_missing_on_no_invented_axes(store, name, words, arms):
    drawn = shown(recorded(store, arms, steps=40), name)
    told = [one for one in drawn.layout.annotations if one.text.startswith(words)]
    assert len(told) == 1 and told[0].xref == "x domain"
    assert drawn.layout.xaxis.tickvals == drawn.layout.yaxis.tickvals == ()
