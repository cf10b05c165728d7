"""Both dials are measured at the same moments, and the verdict says what the points say."""

import re
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
from known_trace import KnownTrace
from looked_at import ARMS, WHY, seen, trained

from bnlab import Arm, Experiment, Settings, figures
from bnlab.executing import execute
from bnlab.figures import dials
from bnlab.looking import look
from bnlab.reading import Series
from bnlab.store import RunStore


def drawn_points(figure):
    return [(float(t.x[0]), float(t.y[0])) for t in figure.data]


def test_both_dials_are_means_over_the_same_moments_in_a_run_too_short_for_live_looks(why_run):
    store, run_id = why_run
    drawn, trace = seen(*why_run, "dials"), store.trace(run_id)
    for arm in range(3):
        shift, rough = [], []
        for step in (0, 20, 40):
            shift.append(trace.look("shift", arm, step)["relative"])
            along = trace.look("gradient_line", arm, step)
            rate = trace.experiment.arm_settings[arm].learning_rate
            walked = along["length"][:, 1:] * rate * along["gradient"][:, None]  # plain gradient: the distance it moves
            rough.append((along["change"] / walked).max(1))
        assert drawn.data[arm].x[0] == pytest.approx(np.exp(np.log(shift).mean()), rel=1e-5)
        assert drawn.data[arm].y[0] == pytest.approx(np.exp(np.log(rough).mean()), rel=1e-3)
        loss = np.array(trace.read("loss", arm, points=10**6).mean)
        assert f": mean loss {loss.mean():.3g}" in drawn.data[arm].name
    assert "Both at steps 0, 20 and 40: training mode, the next mini-batch" in drawn.layout.meta["note"]


def test_moments_are_few_and_those_of_a_shorter_training_are_among_them():
    for n in range(1, 200):
        experiment = Experiment(settings=Settings(steps=5000, score_every=10))
        trace = SimpleNamespace(
            snapshots=lambda n=n: list(range(0, 10 * n, 10)), looked=lambda probe: [0], experiment=experiment
        )
        at = dials.moments(trace)
        assert min(n, dials.MOMENTS) / 2 <= len(at) <= dials.MOMENTS and at[0] == 0
        assert len(set(np.diff(at))) <= 1
        before = dials.moments(
            SimpleNamespace(
                snapshots=lambda n=n: list(range(0, 10 * n - 10, 10)), looked=lambda _: [], experiment=experiment
            )
        )
        assert set(at) <= {*before, 10 * (n - 1)}


def test_a_visit_to_another_step_does_not_move_the_dials(tmp_path):
    settings = Settings(depth=3, width=6, steps=400, data="wine", batch_size=16, score_every=20)
    store, run_id = trained(tmp_path, settings, ARMS)
    before = drawn_points(seen(store, run_id, "dials"))
    trace = store.trace(run_id)
    other = next(step for step in trace.snapshots() if step not in dials.moments(trace))
    for probe in dials.DIALS:
        look(store, run_id, probe, {}, other, trace.snapshot(other))
    assert other in store.trace(run_id).looks("shift", 0)[0]
    assert drawn_points(figures.draw("dials", store.trace(run_id), {})) == before


def test_pauses_change_neither_the_dials_nor_what_is_drawn_over_time_or_along_the_path(tmp_path):
    settings = Settings(depth=3, width=6, steps=70, data="wine", batch_size=16, score_every=10)
    store, whole = trained(tmp_path, settings, ARMS)
    paused = store.create(store.run(whole).experiment).id
    for steps in (2, 2, 31, None):
        execute(store, paused, lambda: None, steps)
    assert set(store.trace(paused).snapshots()) == {*range(0, 71, 10), 2, 4, 35}
    for name, of in (
        ("dials", {}),
        ("smoothness", {}),
        ("curvature", {}),
        ("surface", {"plane": "path"}),
        ("surface", {"plane": "path", "step": "40"}),
    ):
        one, other = (seen(store, run_id, name, of) for run_id in (whole, paused))
        assert one.to_json() == other.to_json(), name
    assert "steps 0, 10, 20, 30, 40, 50, 60 and 70:" in seen(store, paused, "dials").layout.meta["note"]


def test_a_path_of_one_point_is_not_asked_for_and_leads_to_where_a_run_rests(tmp_path):
    """A look that goes wrong would stay: the path would never be drawn."""
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=Settings(depth=2, width=6, steps=50, data="wine", batch_size=16)))
    execute(store, run.id, lambda: None, 3)
    assert store.trace(run.id).snapshots() == [0, 3]
    first, newest = {"plane": "path", "step": "1"}, {"plane": "path"}
    assert figures.needs("surface", store.trace(run.id), first) == []
    assert "needs two snapshots" in figures.draw("surface", store.trace(run.id), first).layout.meta["said"]
    assert list(seen(store, run.id, "surface", newest).data[1].customdata) == [0, 3]
    execute(store, run.id, lambda: None, 4)
    assert list(seen(store, run.id, "surface", newest).data[1].customdata) == [0, 5, 7]


def test_a_moment_that_could_not_be_looked_at_is_left_out_of_both(tmp_path):
    store, run_id = trained(tmp_path, WHY.settings, ARMS)
    store.keep_wrong(run_id, "shift", {}, 20, "it was dark.")
    drawn, trace = seen(store, run_id, "dials"), store.trace(run_id)
    assert "Both at steps 0 and 40:" in drawn.layout.meta["note"]
    rough = [trace.look("gradient_line", 1, step)["smoothness"] for step in (0, 40)]
    assert drawn.data[1].y[0] == pytest.approx(np.exp(np.log(rough).mean()), rel=1e-5)
    for step in (0, 40):
        store.keep_wrong(run_id, "shift", {}, step, "it was dark.")
    assert "it was dark." in figures.draw("dials", store.trace(run_id), {}).layout.meta["said"]


def test_a_dead_network_is_not_smooth_but_out_of_the_comparison(tmp_path):
    """Deep sigmoids without a norm have hardly any shift or curvature: nothing moves."""
    settings = Settings(depth=20, width=16, steps=60, score_every=30)
    arms = (Arm(label="none"), *(Arm(label=p, changes={"norm": "batch", "placement": p}) for p in ("before", "after")))
    drawn = seen(*trained(tmp_path, settings, arms), "dials")
    assert [t.marker.symbol.endswith("-open") for t in drawn.data] == [True, False, False]
    assert (
        "none: shift" in drawn.layout.meta["note"]
        and "is not clearly below the 2.3 of guessing" in drawn.layout.meta["note"]
    )


def dials_of(*each):
    """Dials named a, b, c from (shift, rough, loss), each one number or one a seed; then its kind and why it is out."""
    found = {}
    for name, (shift, rough, loss, *rest) in zip("abc", each, strict=False):
        kind, out = (*rest, (), "")[:2] if len(rest) < 2 else rest
        found[name] = dials.Dial(*(np.atleast_1d(np.array(v, float)) for v in (shift, rough, loss)), out, kind)
    return found


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (
            ((1, 1, 10), (2, 2, 20)),
            "a learns faster than b, with less covariate shift and a smoother loss: here speed goes with both",
        ),
        (
            ((1, 1, 20), (2, 0.5, 10)),
            "b learns faster than a, with more covariate shift and a smoother loss: here speed goes with smoothness",
        ),
        (((1, 1, 20), (1.05, 2, 10)), "b learns faster than a, with about as much covariate shift and a less smooth"),
        (((1, 1, 20), (2, 2, 10)), "here speed goes with neither of the two alone"),
        (
            ((1, 3, 10), (2, 2, 20), (3, 1, 30)),
            "3 pairs of arms differ in speed; the faster arm has clearly less shift in 3 of them and a clearly "
            "smoother loss in 0: here speed goes with less shift",
        ),
        (
            ((1, 1, 10), (1e-5, 800, 10)),
            "differs by a factor of 100,000 and the roughness of the loss differs by a factor of 800.",
        ),
        (((1, 1, 10), (2, 2, 10)), "a and b learn about equally fast, though covariate shift differs by a factor of 2"),
        (((1, 1, 10), (1.02, 2, 10)), "equally fast, though the roughness of the loss differs by a factor of 2."),
        (((1, 1, 10), (1.02, 1.05, 10)), "a and b learn about equally fast, and neither dial differs clearly."),
        (
            (((1, 1), 1, (10, 10)), ((2, 0.9), 1, (10, 10))),
            "equally fast, and neither dial differs",
        ),  # nor do seeds agree
        (((1, 1, 10), (2, 2, 10), (3, 3, 10)), "a, b and c learn about equally fast, though"),
        (((1, 1, 10), (2, 2, 10.5)), "a and b learn about equally fast"),  # within 10 %
        ((((1, 1), 1, (10, 10)), ((2, 2), 2, (20, 9.9))), "a and b learn about equally fast"),  # the seeds disagree
        (
            (((1, 1, np.nan), 1, (10, 15, np.nan)), ((2, 2, 2), 2, (20, 30, 1))),
            "a learns faster than b",  # a seed that diverged in one arm is compared with none
        ),
        (((1, 1, 10),), "Fewer than two arms have a loss well below guessing"),
        (((1, 1, 10, (0.1,)), (2, 2, 20, (1.0,))), "No two of the arms that learn have the same learning rate"),
        (
            ((1, 1, 10, (0.1,)), (2, 2, 20, (0.1,)), (9, 9, 1, (1.0,))),
            f"Only a and b are compared, as both dials depend on {dials.SAME}. a learns faster than b",
        ),
        (
            ((1, 1, 10), (2, 2, 20), (1, 1, 1, (), "it does not learn")),
            "Only a and b are compared. a learns faster than b, with less covariate shift and a smoother loss",
        ),
    ],
)
def test_the_verdict_says_what_the_points_say(points, words):
    assert words in dials.verdict(dials_of(*points))


@pytest.mark.parametrize(
    ("name", "values", "norm"), [("learning_rate", (0.03, 3.0), "batch"), ("batch_size", (8, 512), "none")]
)
def test_arms_are_compared_only_at_one_learning_rate_and_batch_size(tmp_path, name, values, norm):
    """The same untrained networks look rougher at a lower learning rate, and with fewer examples."""
    arms = tuple(Arm(label=f"{name} {v:g}", changes={name: v}) for v in values)
    settings = Settings(depth=5, activation="tanh", norm=norm, steps=60)
    store, run_id = trained(tmp_path, settings, arms, (0, 1, 2))
    drawn, trace = seen(store, run_id, "dials"), store.trace(run_id)
    low, high = (trace.look("gradient_line", arm, 0)["smoothness"] for arm in (0, 1))
    assert (low > 1.4 * high).all()
    note = drawn.layout.meta["note"]
    assert note.startswith("No two of the arms that learn have the same learning rate, optimizer, data and mini-batch")
    assert all(t.marker.symbol.endswith("-open") for t in drawn.data)
    assert [line.partition(":")[0] for line in note.split("\n")][1:] == [*(arm.label for arm in arms), "Shift"]
    assert note.count("(hollow, not compared: no other arm that learns has its learning rate, optimizer, data and") == 2


def test_what_does_not_learn_is_told_from_what_does_by_the_loss_of_guessing(tmp_path):
    """Deep ReLUs with Xavier weights: gradients arrive, and yet the loss stays at chance."""
    settings = Settings(depth=30, width=32, activation="relu", steps=40, score_every=20)
    arms = (Arm(label="plain"), Arm(label="shallow", changes={"depth": 3, "init": "he"}))
    drawn = seen(*trained(tmp_path, settings, arms), "dials")
    note = drawn.layout.meta["note"]
    assert [t.marker.symbol.endswith("-open") for t in drawn.data] == [True, True]  # none is left to compare with
    assert "plain: shift" in note and "its loss of 2.3 is not clearly below the 2.3 of guessing" in note
    assert note.startswith("Fewer than two arms have a loss well below guessing")


def test_a_regression_that_starts_worse_is_not_called_faster_for_halving_its_own_start(tmp_path):
    settings = Settings(data="diabetes", depth=8, activation="tanh", steps=20, learning_rate=0.05, batch_size=32)
    arms = (Arm(label="no norm"), ARMS[1])
    store, run_id = trained(tmp_path, settings, arms, (0, 1, 2))
    seen(store, run_id, "dials")
    trace = store.trace(run_id)
    one, other = (np.array(trace.read("loss", arm).mean) for arm in (0, 1))
    assert (other.mean(1) > one.mean(1)).mean() > 0.9  # batch norm is worse at nearly every step
    plain, normed = (dials.dial(trace, arm, dials.moments(trace)) for arm in (0, 1))
    np.testing.assert_allclose(normed.loss, other.mean(0), rtol=1e-5)
    assert dials.clearly(plain.loss, normed.loss) == -1


def test_a_divergence_of_some_seeds_is_said_and_they_are_out(tmp_path):
    settings = Settings(depth=10, activation="relu", init="he", steps=60, learning_rate=2.2, width=16, score_every=20)
    store, run_id = trained(tmp_path, settings, (Arm(label="plain"), ARMS[1]), tuple(range(8)))
    trace = store.trace(run_id)
    gone = [seed for arm, seed in trace.diverged if arm == 0]
    assert 0 < len(gone) < 8, gone
    note = seen(store, run_id, "dials").layout.meta["note"]
    assert f"with {len(gone)} of 8 seeds, which are left out." in note
    assert np.isnan(dials.dial(store.trace(run_id), 0, dials.moments(trace)).shift[gone]).all()


def test_dials_that_are_measured_stand_on_axes_without_a_word_between_them(why_run):
    figure = seen(*why_run, "dials")
    assert any(np.isfinite(np.asarray(mark.y, float)).all() for mark in figure.data)
    assert not figure.layout.annotations
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        assert axis.tickvals != () and axis.showgrid is not False


def test_an_arm_that_is_not_compared_does_not_stretch_the_axes_and_is_said_to_lie_outside():
    """It pressed those that are compared into a corner."""
    figure = go.Figure().update_xaxes(type="log").update_yaxes(type="log")
    compared = {"a": np.log10([0.1, 2]), "b": np.log10([0.2, 5])}
    near, far = {"near": np.log10([0.5, 2])}, {"far": np.log10([0.1, 500])}
    assert dials.beyond(figure, compared, near) == [] and figure.layout.xaxis.range is None, "plotly's own choice"
    assert dials.beyond(figure, {}, far) == [] and figure.layout.xaxis.range is None
    (told,) = dials.beyond(figure, compared, near | far)
    assert told == (
        "far lies outside the axes, which go by the arms that are compared; Autoscale in the toolbar shows all."
    )
    for axis, least, greatest in ((figure.layout.xaxis, 0.1, 0.5), (figure.layout.yaxis, 2, 5)):
        low, high = 10.0 ** np.array(axis.range)
        assert 0.8 * least < low < least and greatest < high < 1.2 * greatest


def test_the_axes_of_a_figure_go_by_the_arms_that_are_compared(why_run, monkeypatch):
    one = dials.dial
    others, odd = {"out": "", "kind": (1,)}, {"out": "it is odd", "rough": np.full(2, 1e6)}  # the last arm
    change = lambda arm: odd if arm == 2 else others  # noqa: E731
    monkeypatch.setattr(dials, "dial", lambda trace, arm, at: one(trace, arm, at)._replace(**change(arm)))
    drawn = seen(*why_run, "dials")
    assert drawn.layout.yaxis.range[1] < 5 and "LN lies outside the axes" in drawn.layout.meta["note"]
    assert float(drawn.data[2].y[0]) == pytest.approx(1e6), "it is there for Autoscale"


def test_the_marks_of_its_legend_do_not_touch(why_run):
    drawn = seen(*why_run, "dials")
    assert drawn.data[0].marker.size > 12 and drawn.layout.legend.itemsizing == "constant"


@pytest.mark.parametrize(("name", "words"), [("b", "Only a, b and c are"), ("b, slow", "Only a; b, slow; and c are")])
def test_arms_are_enumerated_with_commas_where_no_label_has_one(name, words):
    """'BN noisy; BN after and LN after.' read as two sentences."""
    a, b, c = dials_of((1, 1, 10, "x"), (2, 2, 20, "x"), (3, 3, 30, "x")).values()
    told = {"a": a, name: b, "c": c, "other": c._replace(kind="y")}
    assert words in dials.verdict(told)


def test_where_each_arm_is_compared_with_some_it_is_not_said_that_only_all_of_them_are():
    """'Only a, b, c and d are compared, as ...' of four arms named all there are."""
    a, b = dials_of((1, 1, 10, "x"), (2, 2, 20, "x")).values()
    told = dials.verdict({"a": a, "b": b, "c": a._replace(kind="y"), "d": b._replace(kind="y")})
    assert told.startswith(f"Arms are compared only within one {dials.SAME}, on which both dials depend. 2 pairs of")


class Sparse(KnownTrace):
    """A long run of which buckets of unlike lengths are read."""

    def __init__(self, **of):
        super().__init__(Experiment(settings=Settings(depth=3, steps=40), arms=ARMS[:1], seeds=(0, 1)), **of)
        self.step = 25

    def read(self, quantity, arm, **window):
        values = np.array([[3.0, 1.0], [1.0, 2.0], [0.1, 0.4]])
        return Series(np.array([0, 16, 24]), *[values] * 3)

    def looks(self, probe, arm, at):
        return np.array([0]), {"relative": np.ones((1, 2, 3)), "smoothness": np.ones((1, 2))}


def test_the_mean_loss_counts_a_point_as_often_as_it_stands_for_steps():
    told = dials.dial(Sparse(), 0, [0])
    np.testing.assert_allclose(
        told.loss, [np.mean([3] * 16 + [1] * 8 + [0.1] * 2), np.mean([1] * 16 + [2] * 8 + [0.4] * 2)]
    )


def test_an_arm_is_said_to_have_diverged_when_its_first_network_did():
    told = dials.dial(Sparse(diverged={(0, 0): (25, 1), (0, 1): (19, 2)}), 0, [0])
    assert told.out == "it diverged at step 19" and np.isnan([told.shift, told.rough, told.loss]).all()


@pytest.mark.parametrize("both", [(1.0, 1.1), (1.049, 1.151), (1.04, 1.145), (0.2049, 0.2251), (3e-5, 3.3002e-5)])
def test_who_divides_the_numbers_as_they_are_written_finds_what_the_verdict_counts(why_run, monkeypatch, both):
    """Shifts of 1.049 and 1.151, alike to within 10 %, stood there as 1 and 1.2."""
    ones = np.ones(2)
    those = [dials.Dial(*[value * ones] * 3) for value in both] + [dials.Dial(*[ones] * 3, "it does not learn")]
    monkeypatch.setattr(dials, "dial", lambda trace, arm, at: those[arm])
    drawn = seen(*why_run, "dials")
    lines = [line.rstrip(".").split(", ") for line in drawn.layout.meta["note"].split("\n")[1:3]]
    for told in zip(*lines, strict=True):  # shift, roughness, mean loss
        one, other = (float(words.split()[-1].replace("×10⁻⁵", "e-5")) for words in told)
        assert (other / one > 1.1 + 1e-9) == (both[1] / both[0] > 1.1 + 1e-9), told
    assert all(loss in mark.name for (*_, loss), mark in zip(lines, drawn.data[:2], strict=True))


def test_a_loss_that_is_not_clearly_below_guessing_is_not_so_as_it_is_written():
    """0.989 is less than 0.9 times 1.1, and 0.98895 is not less than 0.9 times 1.0986."""

    class Near(Sparse):
        def read(self, quantity, arm, **window):
            return Series(np.array([0]), *[np.full((1, 2), 0.98895)] * 3)

    trace = Near()
    trace.experiment = Experiment(settings=Settings(data="wine", depth=3, batch_size=8), arms=ARMS[:1], seeds=(0, 1))
    words = dials.dial(trace, 0, [0]).out
    loss, guessing = re.fullmatch(r"its loss of (\S+) is not clearly below the (\S+) of guessing", words).groups()
    assert float(loss) >= dials.LEARNS * float(guessing)


@pytest.mark.parametrize("apart", [1.104, 1.1001, 1.15, 3.0])
def test_a_factor_that_counts_is_more_than_what_counts_as_it_is_written(apart):
    """Dials that differ "by a factor of 1.1" differ by no more than 10 %."""
    told = dials.verdict(dials_of((1, 1, 10), (apart, 1, 10)))
    factor = float(told.split("by a factor of ")[1].rstrip("."))
    assert factor > 1 + dials.ALIKE and factor == pytest.approx(apart, rel=0.05)
