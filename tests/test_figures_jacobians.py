"""The figures of Jacobians show what the probe saw, and the law beside it."""

import re

import numpy as np
import pytest
from looked_at import seen, trained

from bnlab import Arm, Settings, figures
from bnlab.probes import jacobian


def test_a_lower_layer_norm_is_singular_by_construction(why_run):
    note = seen(*why_run, "spectra").layout.meta["note"]
    assert " Lost, below 10⁻¹² of the greatest, from layer 1 to the top: " in note
    assert "LN " in note.split(" Lost, ")[1] and "BN " not in note.split(" Lost, ")[1]


@pytest.mark.parametrize("name", ["jacobians", "smoothness"])
def test_no_note_speaks_of_sides_as_panels_stand_below_each_other_on_a_telephone(why_run, name):
    note = seen(*why_run, name).layout.meta["note"].lower()
    assert "training mode" in note and "right" not in note and "left" not in note.replace("left out", "")


def test_titles_of_axes_are_short_and_the_note_says_the_mode(tmp_path):
    """A title of 77 characters was cut off at both ends on a wide screen."""
    arms = (Arm(label="BN", changes={"norm": "batch"}),)
    arms += (Arm(label="frozen", changes={"norm": "batch", "statistics": "moving"}),)
    small = Settings(depth=3, width=6, data="wine", batch_size=16, steps=1)
    for some, mode in (
        (arms, "training mode (frozen arms: with their moving averages)"),
        (arms[1:], "training with frozen moving averages"),
    ):
        drawn = seen(*trained(tmp_path / mode, small, some), "jacobians")
        titles = [re.sub("<.*?>", "", axis.title.text) for axis in drawn.select_yaxes()]
        assert max(map(len, titles)) <= 55, titles
        assert f"{mode}." in drawn.layout.meta["note"]


@pytest.mark.parametrize("gain", [1.0, 30.0])
def test_of_a_hundred_layers_all_products_are_drawn_that_were_measured(tmp_path, gain):
    """Below 1e-45 and above 1e38, where float32 ends, they were not."""
    settings = Settings(depth=100, width=4, data="wine", batch_size=16, steps=0, init_gain=gain)
    settings = settings.model_copy(update={"activation": "sigmoid" if gain == 1 else "linear"})
    store, run_id = trained(tmp_path, settings, (Arm(label="deep"),))
    drawn = {(line.meta, line.yaxis): line.y for line in seen(store, run_id, "jacobians").data}
    found = store.trace(run_id).look("jacobian", 0, 0)
    assert found["product_rms"].min() < 1e-60 if gain == 1 else found["product_rms"].max() > 1e60
    for what, values in (("root mean square", found["product_rms"]), ("greatest", found["product"][..., 4])):
        np.testing.assert_allclose(drawn[what, "y2"], values[0], rtol=1e-6)
    median = [line.y for line in seen(store, run_id, "spectra").data if line.mode == "lines+markers"][1]
    np.testing.assert_allclose(median, found["product"][0, :, 2], rtol=1e-6)


@pytest.mark.parametrize("name", ["jacobians", "spectra", "conditions"])
def test_every_axis_says_by_itself_what_it_is(why_run, name):
    """On a telephone the panels stand one below the other: no title may go on from the one beside it."""
    titles = [axis.title.text for axis in seen(*why_run, name).select_yaxes() if axis.title.text]
    what = re.compile(r"(singular values?|rms singular value|condition number|share lost) (of|by) J<sub>")
    assert len(titles) > 1 and all(map(what.match, titles)), titles


def test_the_fans_hold_the_middle_half_and_the_conditions_are_the_probes(why_run):
    store, run_id = why_run
    drawn, found = seen(*why_run, "spectra"), seen(*why_run, "conditions")
    trace = store.trace(run_id)
    arms = [trace.look("jacobian", arm, trace.snapshots()[-1]) for arm in range(3)]
    names = [arm.label for arm in trace.experiment.arms]
    for arm, of in enumerate(arms):
        median = [t for t in drawn.data if t.name == names[arm] and t.mode == "lines+markers"]
        bands = [t for t in drawn.data if t.name == names[arm] and t.fill]
        assert len(median) == 2 and len(bands) == 4
        for line, key in zip(median, ("layer", "product"), strict=True):
            np.testing.assert_allclose(line.y, np.exp(np.log(of[key][:, :, 2]).mean(0)), rtol=1e-6)
            assert (line.customdata[:, 1] <= line.y).all() and (line.y <= line.customdata[:, 2]).all()
        lines = [t for t in found.data if t.name == names[arm] and t.mode == "lines+markers"]
        assert [line.yaxis for line in lines] == ["y", "y2", "y3"]
        np.testing.assert_allclose(lines[0].y, np.exp(np.log(of["layer_condition"]).mean(0)), rtol=1e-5)
        np.testing.assert_allclose(lines[2].y, of["product_lost"].mean(0), rtol=1e-6)
    ranges = {tuple(axis.tickvals) for axis in drawn.select_yaxes(row=2)}
    assert len(ranges) == 1  # one axis for all arms
    (shown,) = {axis.range for axis in drawn.select_yaxes(row=2)}
    seen_there = np.concatenate([np.array(t.y, float) for t in drawn.data if t.yaxis in ("y4", "y5", "y6")])
    assert 10 ** shown[0] < np.nanmin(seen_there) and np.nanmax(seen_there) < 10 ** shown[1]


def test_rank_and_cosine_of_the_outputs_are_drawn_as_means_over_the_seeds(why_run):
    drawn, trace = seen(*why_run, "ranks"), why_run[0].trace(why_run[1])
    for axis, key, title in (("y", "rank", "effective rank"), ("y2", "cosine", "mean cosine of two examples")):
        assert drawn.layout["yaxis" + axis[1:]].title.text == title
        for arm, of in enumerate(trace.experiment.arms):
            (line,) = [t for t in drawn.data if (t.name, t.yaxis) == (of.label, axis) and "lines+m" in (t.mode or "")]
            assert list(line.x) == [1, 2, 3, 4]
            np.testing.assert_allclose(line.y, trace.look("rank", arm, 40)[key].mean(0), rtol=1e-6)


def test_where_no_two_examples_have_outputs_the_note_says_why_there_is_no_cosine(why_run, monkeypatch):
    seen(*why_run, "ranks")
    trace = why_run[0].trace(why_run[1])
    whole, missing = trace.look, "No cosine where fewer than two examples have outputs other than 0"
    note = figures.draw("ranks", trace, {}).layout.meta["note"]
    assert missing not in note and "geometric" not in note and "eans over 2 seeds" in note
    monkeypatch.setattr(trace, "look", lambda *a, **o: (q := whole(*a, **o)) | {"cosine": np.nan * q["cosine"]})
    assert missing in figures.draw("ranks", trace, {}).layout.meta["note"]


def test_a_look_that_measured_less_says_so(why_run, monkeypatch):
    trace = why_run[0].trace(why_run[1])
    seen(*why_run, "spectra")
    whole = trace.look
    less = lambda *a, **o: {k: v for k, v in whole(*a, **o).items() if not k.endswith("condition")}  # noqa: E731
    monkeypatch.setattr(trace, "look", less)
    for name in ("jacobians", "spectra", "conditions"):
        assert "An older version" in figures.draw(name, trace, {}).layout.meta["said"]


@pytest.mark.parametrize(
    ("activation", "init", "arm", "factor"),
    [
        ("relu", "xavier", {}, np.sqrt(0.5)),
        ("relu", "he", {"norm": "batch"}, np.sqrt(np.pi / (np.pi - 1))),
        ("gelu", "he", {}, None),  # far from its limit: there no layer's factor is that of infinitely many
        ("elu", "he", {}, None),
    ],
)
def test_the_law_beside_the_product_of_jacobians_is_measured(tmp_path, monkeypatch, activation, init, arm, factor):
    monkeypatch.setattr(jacobian, "WIDEST", 5)  # singular values are not what is compared
    settings = Settings(depth=6, width=256, activation=activation, init=init, steps=1, batch_size=256)
    store, run_id = trained(tmp_path, settings, (Arm(label="a", changes=arm),), (0, 1, 2, 3))
    drawn = seen(store, run_id, "jacobians", {"step": "0"})
    (rings,) = (line for line in drawn.data if line.mode == "markers")
    measured = store.trace(run_id).look("jacobian", 0, 0)["training"]
    np.testing.assert_allclose(rings.y, np.sqrt(np.square(measured).mean(0)), rtol=0.03)
    if factor:
        np.testing.assert_allclose(rings.y, factor ** np.arange(5, 0, -1), rtol=0.03)
    assert "Rings: the law" in drawn.layout.meta["note"]


def test_a_relu_without_a_norm_has_lines_where_most_directions_are_lost(tmp_path):
    settings = Settings(depth=16, width=16, activation="relu", init="he", steps=1)
    store, run_id = trained(tmp_path, settings, (Arm(label="plain"),), (0, 1))
    drawn = seen(store, run_id, "jacobians", {"step": "0"})
    greatest = [np.asarray(t.y, float) for t in drawn.data if t.meta == "greatest" and t.mode == "lines+markers"]
    assert len(greatest) == 2 and all(np.isfinite(y).all() and (y > 0).all() for y in greatest)
    assert {t.legendgroup for t in drawn.data if t.name} == {"plain"}, "the legend hides all of an arm at once"
    fans = seen(store, run_id, "spectra", {"step": "0"})
    assert "of the directions" in fans.layout.meta["note"]
    assert all((np.asarray(t.y, float)[np.isfinite(t.y)] > 0).all() for t in fans.data)  # no band down to a floor


def test_singular_values_below_what_a_float_holds_are_no_end_of_the_axis(tmp_path):
    """Its room ended at 10^-330, whose tick was the logarithm of 0: the chart could not be drawn."""
    settings = Settings(depth=100, width=8, init_gain=0.003, steps=0)
    drawn = seen(*trained(tmp_path, settings, (Arm(label="deep"),)), "spectra").layout.yaxis2
    assert drawn.range[0] == -323 and len(drawn.tickvals) > 2
