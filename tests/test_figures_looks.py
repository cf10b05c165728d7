"""Figures of looks say what they wait for, draw what is there, and name what is not: networks that diverged too."""

import numpy as np
import pytest
from looked_at import ARMS, WHY, seen, trained

from bnlab import Arm, Settings, figures
from bnlab.figures import contest, dials, geometry, jacobians, predicted, rates, surface
from bnlab.looking import look

NAMES = [
    *predicted.PLOTS,
    *dials.PLOTS,
    *contest.PLOTS,
    *rates.PLOTS,
    *jacobians.PLOTS,
    *geometry.PLOTS,
    *surface.PLOTS,
]
ASKED = [{}, {"plane": "path"}, {"plane": "path", "look": "surface"}, {"step": "20"}]
CASES = [(name, o) for name in NAMES for o in ASKED if set(o) <= {x.name for x in figures.FIGURES[name].options}]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_figure_says_what_it_waits_for_and_then_draws(why_run, name, options):
    store, run_id = why_run
    trace = store.trace(run_id)
    needed = figures.needs(name, trace, options)
    if len(needed) == 1:
        assert "Computing this chart" in figures.draw(name, trace, options).layout.annotations[0].text
    for probe, step, of in needed:
        look(store, run_id, probe, of, step, trace.snapshot(step))
    assert figures.needs(name, store.trace(run_id), options) == []
    drawn = figures.draw(name, store.trace(run_id), options)
    if name == "learning_rates":
        assert "This needs arms that differ in nothing but their learning rate" in drawn.layout.annotations[0].text
        return
    assert len(drawn.data) >= 2 and drawn.layout.meta["note"]
    if "surface" not in options.values():
        axes = [*drawn.select_xaxes(), *drawn.select_yaxes()]
        assert all(axis.title.text for axis in axes if axis.showticklabels is not False)  # inner axes have none


@pytest.fixture(scope="module")
def half_diverged(tmp_path_factory):
    """He-initialized ReLUs at a large eta: the plain network diverges, the one with batch norm does not."""
    settings = Settings(depth=6, width=32, activation="relu", init="he", learning_rate=3, steps=40, score_every=10)
    store, run_id = trained(tmp_path_factory.mktemp("store"), settings, (Arm(label="plain"), ARMS[1]))
    assert set(store.trace(run_id).diverged) == {(0, 0)}
    return store, run_id


OVER_TIME = ("smoothness", "curvature", "scale_over_time")


NONE_DIVERGED = ("predicted", "learning_rates")  # before the first update; no band without arms of several rates


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] not in NONE_DIVERGED])
def test_what_diverged_does_not_hide_the_others(half_diverged, name, options):
    drawn = seen(*half_diverged, name, options)
    shown = [t for t in drawn.data if "BN" in (t.name or "") or name == "surface"]
    key = "z" if name == "surface" else "y"
    assert any(np.isfinite(np.asarray(t[key], float)).any() for t in shown if t[key] is not None)
    note = drawn.layout.meta["note"]
    assert "nan" not in note
    if name != "undone":  # of arms with batch norm only
        assert "diverged at step" in note
    if name not in OVER_TIME:
        return
    assert "Drawn until then. The axis is chosen for the networks that did not diverge." in note
    for axis in drawn.select_yaxes():
        of = [t for t in drawn.data if t.yaxis == axis.plotly_name.replace("axis", "") and t.mode]
        left, gone = (np.concatenate([t.y for t in of if t.name == label]) for label in ("BN", "plain"))
        assert np.isfinite(gone).any() and not np.isfinite(gone).all()
        low, high = 10.0 ** np.array(axis.range) if axis.type == "log" else axis.range
        assert low <= np.nanmin(left) and high >= np.nanmax(left)
        assert high < 30 * np.nanmax(left)
        if axis.type == "log":
            assert sum(low <= tick <= high for tick in axis.tickvals or (low, high)) >= 2


def test_two_diverged_arms_are_a_sentence(half_diverged):
    drawn = seen(*half_diverged, "surface", {"arm": "0", "beside": "0"})
    assert "had diverged by step" in drawn.layout.annotations[0].text


def test_no_steps_are_no_error(tmp_path):
    run = trained(tmp_path, WHY.settings.model_copy(update={"steps": 0}), ARMS, WHY.seeds)
    for name in NAMES:
        seen(*run, name)
    assert "path needs two snapshots" in seen(*run, "surface", {"plane": "path"}).layout.annotations[0].text


def test_beside_deeper_arms_one_layer_has_none_below_and_is_not_compared(tmp_path):
    arms = (*ARMS[:2], Arm(label="shallow", changes={"depth": 1}))
    run = trained(tmp_path, Settings(depth=3, width=6, steps=20, data="wine", batch_size=16), arms)
    note = seen(*run, "dials").layout.meta["note"]
    (line,) = (words for words in note.splitlines() if words.startswith("shallow: "))
    assert "shift not measurable" in line and "hollow, not compared" in line and "nan" not in note


def test_losses_have_the_unit_of_the_curves(why_run, tmp_path):
    settings = Settings(depth=2, width=6, data="diabetes", batch_size=16, steps=4, score_every=2)
    regression = trained(tmp_path, settings, ARMS[:2])
    for name, title in (("smoothness", "{} along the gradient"), ("invariance", "{}")):
        assert seen(*why_run, name).layout.yaxis.title.text == title.format("cross-entropy E (nats)")
        assert seen(*regression, name).layout.yaxis.title.text == title.format("mean squared error")
    for of, title, unit in ((why_run, "cross-entropy E (nats)", " nats"), (regression, "mean squared error", "")):
        drawn = seen(*of, "surface")
        assert drawn.layout.coloraxis.colorbar.title.text == title
        assert f"{unit}<extra>BN" in drawn.data[2].hovertemplate
        note = seen(*of, "undone").layout.meta["note"]
        assert ("nats" in note) == bool(unit) and ", training mode: in layer " in note
