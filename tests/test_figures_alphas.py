"""Averages of any alpha are those of a training with it, through forks too, and none is drawn where steps miss."""

import numpy as np
import pytest
from looked_at import BN, cause_at, forked, recorded, seen, shown, thinned, trained

from bnlab import Arm, Experiment, Settings, figures, moving
from bnlab.executing import execute
from bnlab.figures.alphas import any_alpha, in_full, stored, unknown
from bnlab.looking import look


@pytest.mark.parametrize("name", ["mean", "var"])
def test_the_training_alpha_made_anew_is_the_recorded_average(inference_run, name):
    told = any_alpha(inference_run[0].trace(inference_run[1]), name, 1, 1, 2, 3, 0.95)
    np.testing.assert_allclose(told.again, told.online, rtol=1e-5, atol=1e-7)
    other = any_alpha(inference_run[0].trace(inference_run[1]), name, 1, 1, 2, 3, 0.5)
    assert np.abs(other.again - told.online).max() > 1e-3
    left = 0.95 ** (told.steps + 1.0)  # Adam's correction, by its own formula
    np.testing.assert_allclose(
        told.corrected, (told.online - left * moving.START[name]) / (1 - left), rtol=1e-3, atol=1e-5
    )


def test_any_alpha_shows_the_corrected_average_beside_the_plain_one_and_what_is_kept(inference_run):
    drawn = figures.draw("recomputed", inference_run[0].trace(inference_run[1]), {"alpha": "0.5"})
    assert [line.name for line in drawn.data[:4]] == [
        "trained with α = 0.95", "α = 0.5", "α = 0.5, bias-corrected", "population",
    ]  # fmt: skip
    kept = 2 * 4 * 3 * 8 * 2 * 60  # mean and variance, float32, layers, units, seeds, steps
    assert f"{kept / 1e3:.0f} kB for this arm, of the run's budget of 512 MB" in drawn.layout.meta["note"]


def test_what_is_kept_is_counted_in_rows_of_this_run(store):
    """A fork counted its parent's steps as its own, and every run one more after its last update."""
    asked = {"norm": "batch", "data": "wine", "depth": 5, "width": 100, "batch_size": 16, "steps": 6, "score_every": 3}
    whole = store.create(Experiment(settings=Settings(**asked), arms=(BN,)))
    wishes = iter(["pause"])
    execute(store, whole.id, lambda: next(wishes))  # in its first scoring
    begun = store.trace(whole.id)
    store.change(whole.id, status="queued", reason="")
    execute(store, whole.id, lambda: None, steps=2)
    some = store.trace(whole.id)
    store.change(whole.id, status="queued", reason="")
    execute(store, whole.id, lambda: None)
    ended = store.trace(whole.id)
    fork = forked(store, ended, 3, alpha=0.5)
    for trace, arm, rows in ((begun, 0, 1), (some, 0, 2), (ended, 0, 6), (fork, 1, 3)):
        values = [trace.read(f"batch_{name}", arm).mean for name in ("mean", "var")]
        assert len(values[0]) == rows
        size = sum(q.astype(np.float32).nbytes for q in values)
        assert f": {size / 1e3:.0f} kB for this arm" in stored(trace, arm)


def test_the_unchanged_arm_of_a_fork_has_its_parents_history(store):
    parent = recorded(store)
    child = forked(store, parent, learning_rate=0.01)
    grandchild = forked(store, child, 30, weight_decay=0.01)
    for trace in (child, grandchild):
        for name in ("mean", "var"):
            for told, true in zip(*(any_alpha(t, name, 0, 0, 2, 3, 0.7) for t in (trace, parent)), strict=True):
                assert np.array_equal(told, true)
        for probe in ("alphas", "off"):
            look(store, trace.run.id, probe, {}, 40, trace.snapshot(40))
            look(store, parent.run.id, probe, {}, 40, parent.snapshot(40))
        found, true = (t.look("alphas", 0, 40) for t in (trace, parent))
        assert np.array_equal(found["test_loss"], true["test_loss"])
        found, true = (t.look("off", 0, 40) for t in (trace, parent))
        assert 0 < found["replayed"][0] == 40 - trace.first and true["replayed"][0] == 40
        np.testing.assert_allclose(found["loss"][:, 0], true["loss"][:, 0])
        for part in (0, 1, 4):  # what does not need the population between the scorings
            np.testing.assert_allclose(found["parts"][..., part], true["parts"][..., part], rtol=1e-9, atol=1e-12)


def test_the_changed_arm_of_a_fork_has_the_parents_steps_and_then_its_own(store):
    parent = recorded(store)
    child = forked(store, parent, alpha=0.3)
    found = any_alpha(child, "var", 1, 0, 1, 2, 0.8)
    both = [t.read("batch_var", arm, layer=1, unit=2).mean[:, 0] for t, arm in ((parent, 0), (child, 1))]
    m, again = 1.0, []
    for b in np.concatenate([both[0][:20], both[1]]).astype(float):
        m = 0.8 * m + 0.2 * b
        again.append(m)
    np.testing.assert_allclose(found.again, again, rtol=1e-6)
    drawn = figures.draw("recomputed", child, {"arm": "1"})
    assert drawn.data[0].name == "trained with α = 0.3 from step 20 on"
    assert "before 20 are those of the run that this one was forked from" in drawn.layout.meta["note"]
    assert figures.needs("three_losses", child, {"arm": "1"}) == []  # of two alphas no single cause is told
    assert figures.needs("three_losses", child, {"arm": "0"}) != []


def test_a_fork_says_where_its_history_does_not_suffice(store):
    frozen = recorded(store, statistics="moving")
    assert "Up to step 20" in unknown(forked(store, frozen, statistics="batch"), 1, 40)
    parent = recorded(store)
    child = forked(store, parent, batch_size=8)
    assert unknown(child, 1, 40) is None
    assert "changed its mini-batch size" in figures.draw("why_off", child, {"arm": "1"}).layout.annotations[0].text
    assert figures.needs("why_off", child, {"arm": "0"}) == [("off", 40, {})]
    store.delete(parent.run.id)
    for name in ("recomputed", "alpha_inference", "alpha_curve", "why_off"):
        said = figures.draw(name, child, {}).layout.annotations[0].text
        assert "what came before it was deleted" in said and figures.needs(name, child, {}) == []


def test_where_steps_are_missing_no_other_alpha_is_drawn_and_the_cause_stays_the_same(store):
    trace = recorded(store)
    before = cause_at(store, trace, 35)
    store.db.execute("delete from looks where run = ?", (trace.run.id,))
    few = thinned(store, trace, 5)
    steps = few.read("batch_mean", 0).steps
    assert list(steps) == [*range(0, 40, 5)]
    for name in ("recomputed", "alpha_inference", "alpha_curve", "why_off"):
        said = figures.draw(name, few, {}).layout.annotations[0].text
        assert said.startswith("Only 8 of 40 steps") and "another alpha need every step" in said
        assert "Train it again: every step is kept while the recording budget of 512 MB lasts" in said
        assert figures.needs(name, few, {}) == []
    assert unknown(few, 0, 1) is None  # the first step is there
    assert cause_at(store, few, 35) == before


def test_where_the_budget_was_used_up_only_a_larger_one_or_less_to_keep_is_advised(store):
    """'Train it again' came first, and would have given the same."""
    trace = recorded(store, depth=10, width=100, batch_size=100, steps=400, score_every=100, budget_mb=8)
    kept = len(trace.read("batch_mean", 0).steps)
    assert kept < 400, "the budget was not used up"
    for name in ("recomputed", "alpha_inference", "alpha_curve", "why_off"):
        said = figures.draw(name, trace, {}).layout.meta["said"]
        assert said.startswith(f"Only {kept} of 400 steps") and "Train it again" not in said
        assert said.endswith(
            "The recording budget of 8 MB was used up. Train with a larger one, or fewer steps or units."
        )


def test_the_rows_of_a_run_in_full_are_those_that_are_on_its_disk(store):
    trace = recorded(store, ({"norm": "batch"}, {}, {"norm": "batch", "depth": 3}), steps=10)
    sizes = store.db.execute("select sum(length(data)) from chunks where run = ?", (trace.run.id,)).fetchone()
    assert in_full(trace) == sizes[0]


def test_the_loss_against_alpha_has_a_logarithmic_axis(inference_run):
    store, run_id = inference_run
    assert shown(store.trace(run_id), "alpha_curve").layout.yaxis.type == "log"


@pytest.mark.parametrize("settings", [{"steps": 0}, {"score_every": 100_000, "steps": 3}])
def test_where_nothing_has_come_in_no_alpha_is_the_best(store, settings):
    """Of equal losses the first was named the least, and ringed: α = 0."""
    trace = recorded(store, **settings)
    drawn = shown(trace, "alpha_curve", step="0")
    _, losses, _ = trace.scores(0, "test", "moving")
    note = drawn.layout.meta["note"]
    assert note.startswith("Weights of step 0: nothing has come in yet, every α gives the same (")
    assert f"{losses[0, 0]:.3g} on the test set)" in note and "least" not in note
    assert not [line for line in drawn.data if line.mode == "markers"]
    assert [len(line.x) for line in drawn.data] == [len(moving.ALPHAS)] * 2


def test_rings_mark_the_least_losses(inference_run):
    drawn = shown(inference_run[0].trace(inference_run[1]), "alpha_curve")
    lines, rings = ([line for line in drawn.data if ("lines" in line.mode) == which] for which in (True, False))
    assert [(ring.y[0]) for ring in rings] == pytest.approx([np.nanmin(line.y) for line in lines])


def test_what_is_said_of_frozen_averages_stays_when_another_arm_was_looked_at(tmp_path):
    """A look is at all arms of a stack: of this one it finds averages that nothing came into."""
    arms = (Arm(label="BN", changes={}), Arm(label="frozen", changes={"statistics": "moving"}))
    question = Settings(data="wine", depth=2, width=4, batch_size=16, steps=20, score_every=10, norm="batch")
    store, run_id = trained(tmp_path, question, arms)
    for name in ("why_off", "alpha_curve"):
        for arm in ("1", "0", "1"):
            said = seen(store, run_id, name, {"arm": arm}).layout.annotations
            frozen = bool(said) and said[0].text.startswith("This arm trains with its moving averages frozen")
            assert frozen == (arm == "1"), name


@pytest.mark.parametrize(
    "lost", [{"learning_rate": 100.0, "weight_decay": 1.0}, {"learning_rate": 3.0, "weight_decay": 1.0}]
)
def test_of_an_arm_that_is_lost_the_steps_before_are_drawn(store, lost):
    trace = recorded(store, ({}, {"norm": "batch", "activation": "relu"} | lost), steps=40)
    steps, losses, _ = trace.scores(1, "test", "moving")
    fine = steps[np.isfinite(losses[:, 0])]
    assert 0 < fine[-1] < trace.snapshots()[-1]
    drawn = shown(trace, "alpha_inference", arm="1")
    line = next(line for line in drawn.data if line.name == "α = 0.99")
    assert list(line.x) == list(fine) and np.isfinite(line.y).all()
    assert f"Drawn up to step {fine[-1]}, the last at which arm 1 has finite losses." in drawn.layout.meta["note"]


def test_the_lines_of_the_inference_loss_are_the_recorded_scores_and_what_the_probe_saw(inference_run):
    trace = inference_run[0].trace(inference_run[1])
    drawn = {line.name: line for line in shown(trace, "alpha_inference", arm="1", alpha="0.5").data}
    for name, kind in (("population statistics", "population"), ("trained with α = 0.95", "moving")):
        steps, losses, _ = trace.scores(1, "test", kind)
        assert list(drawn[name].x) == list(steps)
        np.testing.assert_allclose(drawn[name].y, losses.mean(1), rtol=1e-6)
    found = trace.look("inference", 1, 60, alpha=0.5)
    assert list(drawn["α = 0.5"].x) == list(found["step"][0])
    np.testing.assert_allclose(drawn["α = 0.5"].y, found["loss"].mean(0), rtol=1e-6)


def test_a_seed_without_a_loss_leaves_the_lines_to_the_others(inference_run, monkeypatch):
    trace = inference_run[0].trace(inference_run[1])
    for name in ("alpha_inference", "alpha_curve"):
        shown(trace, name, arm="1")
    whole = trace.look
    lost = lambda q: np.where([[True], [False]], q, np.nan) if q.dtype.kind == "f" else q  # noqa: E731
    monkeypatch.setattr(trace, "look", lambda *a, **o: {name: lost(q) for name, q in whole(*a, **o).items()})
    for name, probe, key, of in (
        ("alpha_inference", "inference", "loss", {"alpha": 0.99}),
        ("alpha_curve", "alphas", "test_loss", {}),
    ):
        drawn = figures.draw(name, trace, {"arm": "1"})
        (line,) = [one for one in drawn.data if one.name in ("α = 0.99", "test set")]
        np.testing.assert_allclose(line.y, whole(probe, 1, 60, **of)[key][0], rtol=1e-6)


def test_mean_and_variance_of_any_alpha_are_drawn_in_their_panels(inference_run):
    trace = inference_run[0].trace(inference_run[1])
    asked = {"arm": "1", "seed": "1", "layer": "2", "unit": "4", "alpha": "0.5"}
    drawn = figures.draw("recomputed", trace, asked)
    for panel, name, symbol in (("y", "mean", "μ̄"), ("y2", "var", "σ̄²")):
        told = any_alpha(trace, name, 1, 1, 2, 3, 0.5)
        online, again, corrected, population = (line.y for line in drawn.data if line.yaxis == panel)
        for values, true in zip(
            (online, again, corrected, population),
            (told.online, told.again, told.corrected, told.population),
            strict=True,
        ):
            np.testing.assert_allclose(values, true, rtol=1e-6)
        assert drawn.layout["yaxis" + panel[1:]].title.text.startswith(f"{symbol} of ")
