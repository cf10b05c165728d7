"""The figures of the moving averages show the numbers that the definitions give."""

import numpy as np
import pytest
from known_trace import KnownTrace

from bnlab import executing, figures
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import gamma_beta, moving, points, style
from bnlab.record import evenly
from bnlab.store import RunStore

SEEDS, L, D, N = 2, 3, 4, 50
ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch", "alpha": 0.8}))
EXPERIMENT = Experiment(settings=Settings(depth=L, width=D, steps=N, batch_size=32), arms=ARMS, seeds=(3, 5))


def averaged(batch, alpha, start):
    """Moving averages written out as the sum they are: alpha^t start + (1-alpha) sum alpha^(t-s) batch_s."""
    weights = np.array([[(1 - alpha) * alpha ** (t - s) if s <= t else 0 for s in range(N)] for t in range(N)])
    return np.einsum("ts,s...->t...", weights, batch) + (alpha ** np.arange(1, N + 1) * start).reshape(-1, 1, 1, 1)


@pytest.fixture
def trace():
    rng = np.random.default_rng(0)
    shape = (N, SEEDS, L, D)
    values = {("batch_mean", 1): rng.normal(size=shape), ("batch_var", 1): rng.uniform(1, 2, shape)}
    values["moving_mean", 1] = averaged(values["batch_mean", 1], 0.8, 0)
    values["moving_var", 1] = averaged(values["batch_var", 1], 0.8, 1)
    values["gamma", 1], values["beta", 1] = rng.normal(1, 1, shape), rng.normal(0, 1, shape)
    steps = np.array([0, 10, 20, 50])
    whole = rng.normal(size=(4, *shape[1:])), rng.uniform(1, 2, (4, *shape[1:]))
    return KnownTrace(EXPERIMENT, {k: v.astype(np.float32) for k, v in values.items()}, {1: (steps, *whole)})


def test_a_unit_is_followed_and_its_gap_is_taken_where_the_population_is_known(trace):
    told = moving.moving(trace, 1, 1, 2, 3)
    batch, average = trace.values["batch_mean", 1][:, 1, 1, 3], trace.values["moving_mean", 1][:, 1, 1, 3]
    np.testing.assert_array_equal(told.mean.batch, batch)
    np.testing.assert_array_equal(told.mean.moving, average)
    whole = trace.whole[1][1][:, 1, 1, 3]
    np.testing.assert_array_equal(told.mean.checked, [0, 10, 20, 50])
    used = [0, *average[[9, 19, 49]]]  # after the step before
    np.testing.assert_allclose(told.mean.gap, np.abs(used - whole), rtol=1e-6)
    assert told.alpha == 0.8
    assert told.noise == pytest.approx(np.sqrt(0.2 / 1.8 * trace.whole[1][2][-1, 1, 1, 3] / 32))


def test_the_noise_of_the_moving_mean_is_what_a_simulation_finds(trace):
    """The arm's own: alpha 0.8, K = 32, and the variance it ends with."""
    whole = trace.whole[1][2][-1, 1, 1, 3]
    rng = np.random.default_rng(1)
    means = rng.normal(0, np.sqrt(whole / 32), size=(4000, 50))
    average = np.zeros(4000)
    for t in range(50):
        average = 0.8 * average + 0.2 * means[:, t]
    assert moving.moving(trace, 1, 1, 2, 3).noise == pytest.approx(average.std(), rel=0.05)


def test_long_lines_are_thinned_and_keep_their_ends():
    places = evenly(100_000, 500)
    assert len(places) == 500 and places[0] == 0 and places[-1] == 99_999 and (np.diff(places) > 0).all()
    np.testing.assert_array_equal(evenly(3, 500), [0, 1, 2])
    assert len(evenly(0, 500)) == 0


def test_all_units_of_a_layer_stand_beside_their_population(trace):
    told = moving.overview(trace, 1, 0, 3, 18)
    assert told.step == 20
    np.testing.assert_array_equal(told.moving_var, trace.values["moving_var", 1][19, 0, 2])
    np.testing.assert_array_equal(told.population_mean, trace.whole[1][1][2, 0, 2])
    by_hand = [
        abs(m - p) / v**0.5 for m, p, v in zip(told.moving_mean, told.population_mean, told.population_var, strict=True)
    ]
    np.testing.assert_allclose(told.off, by_hand)


def test_what_is_compared_is_of_the_same_weights_however_few_rows_are_kept(tmp_path):
    """A run of which every row was kept, and then rows 0, 8, 16, ...: the averages of step t are those of row t - 1."""
    settings = Settings(data="wine", depth=2, width=4, batch_size=16, steps=60, score_every=10, norm="batch")
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=settings, arms=(Arm(label="bn"),)))
    executing.execute(store, run.id, lambda: None)
    whole = store.trace(run.id).read("moving_mean", 0).mean[:, 0, 1]
    with store.writer(run.id) as writer, store.transaction() as db:
        for table in writer.heavy:
            table.thin(db, 8)
    thinned = store.trace(run.id)
    assert len(thinned.read("moving_mean", 0).steps) == 8
    gaps = moving.moving(thinned, 0, 0, 2, 1).mean
    np.testing.assert_array_equal(gaps.checked, range(0, 70, 10))
    for i, step in enumerate(gaps.checked[1:].tolist(), 1):
        told = moving.overview(thinned, 0, 0, 2, step + 3)
        assert told.step == step
        np.testing.assert_array_equal(told.moving_mean, whole[step - 1])
        assert gaps.gap[i] == abs(whole[step - 1, 1] - gaps.population[i])
    assert (moving.overview(thinned, 0, 0, 2, 0).moving_mean == 0).all()
    with store.transaction() as db:  # as an older version kept it
        db.execute("update population set data = cast(substr(data, 1, length(data) / 2) as blob)")
    older = store.trace(run.id)
    np.testing.assert_array_equal(moving.moving(older, 0, 0, 2, 1).mean.population, gaps.population)
    assert np.isnan(moving.moving(older, 0, 0, 2, 1).mean.gap).all()
    words = figures.draw("units_overview", older, {}).layout.annotations[0].text
    assert words.startswith("No finite moving average is kept of step")
    store.close()


def test_percentiles_are_those_of_numpy_without_what_is_missing():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(20, 37))
    values[values > 1.2] = np.nan
    wanted = np.stack([np.percentile(row[~np.isnan(row)], gamma_beta.SPREAD) for row in values])
    np.testing.assert_allclose(points.percentiles(values, gamma_beta.SPREAD), wanted)
    odd = points.percentiles(np.array([[np.nan, np.nan], [np.inf, 1], [np.inf, np.inf]]), (0, 50, 100))
    np.testing.assert_array_equal(odd, [[np.nan] * 3, [1, np.inf, np.inf], [np.inf] * 3])
    assert np.isnan(points.percentiles(np.empty((2, 0)), (5,))).all()


def test_gamma_has_the_percentiles_of_its_units(trace):
    told = gamma_beta.learned(trace, "gamma", 1, 1, 2, 3)
    raw = trace.values["gamma", 1]
    np.testing.assert_allclose(told.bands[7], np.percentile(raw[7, :, 1], [5, 25, 50, 75, 95]), rtol=1e-5)
    np.testing.assert_array_equal(told.unit, raw[:, 1, 1, 3])


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (0.9, "α = 0.9: the old value has weight 0.9; the weight of the start (0 and 1) falls to a tenth in 22 steps."),
        (0, "α = 0: the old value has weight 0; the weight of the start (0 and 1) falls to a tenth in 1 step."),
        (1, "α = 1: the old value has all the weight; the averages stay at their start, 0 and 1."),
    ],
)
def test_alpha_is_explained(alpha, words):
    assert moving.memory(alpha) == words


FIGURES = ("moving_averages", "units_overview", "gamma_beta")


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_without_steps_is_a_sentence(trace, name):
    """It has scores and population statistics of the initial networks, and no rows."""
    none = EXPERIMENT.model_copy(update={"settings": Settings(depth=L, width=D, steps=0)})
    values = {key: rows[:0] for key, rows in trace.values.items()}
    empty = KnownTrace(none, values, {1: tuple(part[:1] for part in trace.whole[1])})
    empty.step = 0
    assert "has no steps" in figures.draw(name, empty, {}).layout.annotations[0].text


def test_the_curves_are_told_apart_and_few_marks_lie_over_them(trace):
    steps = np.arange(120)
    trace.whole[1] = (steps, *(np.ones((120, SEEDS, L, D), np.float32) for _ in range(2)))
    figure = figures.draw("moving_averages", trace, {"layer": "1"})
    looks = {d.name: (d.mode, d.line.color, d.line.width, d.line.dash, d.marker.symbol) for d in figure.data}
    assert len(set(looks.values())) == len(looks) == 6
    (batch, *_), (whole, *_) = ([d for d in figure.data if d.name == name] for name in ("mini-batch", "population"))
    assert batch.marker.color == style.color(1) and batch.opacity >= 0.7
    (told,) = (d for d in figure.data if d.name == "mini-batch" and d.showlegend is not False)
    assert told.marker.size >= 6 > batch.marker.size, "the dot in the legend is seen"
    assert len(whole.x) <= 30 and (whole.x[0], whole.x[-1]) == (0, 119)
    np.testing.assert_allclose(batch.y, trace.values["batch_mean", 1][:, 0, 0, 0])


@pytest.mark.parametrize(
    ("ends", "kind", "ticks"),
    [((0.15, 0.4), "linear", None), ((0.04, 0.9), "log", "D2"), ((1e-9, 1), "log", 2), ((0, 1), "linear", None)],
)
def test_the_variances_axis_has_full_numbers(trace, ends, kind, ticks):
    for which in (trace.whole[1][2], trace.values["moving_var", 1]):
        which[:] = np.geomspace(*ends, D) if ends[0] else np.linspace(0, 0, D)
    axis = figures.draw("units_overview", trace, {}).layout.xaxis2
    assert (axis.type, axis.dtick) == (kind, ticks)
    assert kind == "linear" or axis.tickformat == ",~g"


def test_the_start_is_a_line_and_its_words_are_in_the_note(trace):
    figure = figures.draw("gamma_beta", trace, {})
    assert [(shape.y0, shape.label.text) for shape in figure.layout.shapes] == [(1, ""), (0, "")]
    assert figure.layout.meta["note"].endswith("Dotted: the start, γ = 1 and β = 0.")


def test_only_the_variance_is_logarithmic_and_no_tick_is_a_lone_digit(trace):
    axes = figures.draw("moving_averages", trace, {"scale": "log"}).layout
    assert (axes.yaxis.type, axes.yaxis2.type) == (None, "log"), "a mean may be negative"
    for axis in (axes.yaxis3, axes.yaxis4):
        assert axis.type == "linear" or (axis.tickformat == ",~g" and axis.dtick in ("D2", 1, 2))


@pytest.mark.parametrize("name", FIGURES)
def test_a_network_that_diverged_is_named(trace, name):
    trace.diverged = {(1, 5): (30, 2)}
    assert "diverged at step 30" in figures.draw(name, trace, {"seed": "1"}).layout.meta["note"]
    assert "diverged" not in figures.draw(name, trace, {"seed": "0"}).layout.meta["note"]


def test_nothing_is_drawn_of_a_network_after_it_diverged(trace):
    trace.diverged = {(1, 5): (15, 2)}
    for name in ("batch_mean", "batch_var", "moving_mean", "moving_var"):
        trace.values[name, 1][16:, 1] = np.nan
    told = moving.moving(trace, 1, 1, 2, 3)
    np.testing.assert_array_equal(told.mean.checked, [0, 10])
    np.testing.assert_array_equal(moving.moving(trace, 1, 0, 2, 3).mean.checked, [0, 10, 20, 50])
    words = figures.draw("units_overview", trace, {"seed": "1"}).layout.annotations[0].text
    assert words.startswith("No finite moving average is kept of step 50. This network diverged at step 15")


def test_statistics_that_are_infinite_before_a_network_diverges_warn_nobody(trace):
    """The server's log had 'invalid value encountered in subtract' at every update."""
    values = {key: rows.copy() for key, rows in trace.values.items()}
    for name in ("batch_var", "moving_var"):
        values[name, 1][-1] = np.inf
    grown = KnownTrace(EXPERIMENT, values, trace.whole)
    assert moving.moving_averages(grown, arm=1, seed=0, layer=1, unit=1, scale="log").data


@pytest.mark.parametrize(("name", "lines"), [("moving_averages", 4), ("gamma_beta", 4)])
def test_one_step_is_a_visible_point(trace, name, lines):
    short = KnownTrace(EXPERIMENT, {key: rows[:1] for key, rows in trace.values.items()}, trace.whole)
    drawn = [d for d in figures.draw(name, short, {}).data if d.mode == "lines+markers" and d.x is not None]
    assert len([d for d in drawn if len(d.x) == 1]) == lines


@pytest.mark.parametrize("lost", [1, 2])
def test_the_axes_of_gamma_and_beta_are_those_of_networks_that_last(trace, lost):
    trace.diverged = {(1, EXPERIMENT.seeds[i]): (30, 2) for i in range(lost)}
    for name in ("gamma", "beta"):
        trace.values[name, 1][30, :lost] = 1e9
        trace.values[name, 1][31:, :lost] = np.nan
    for seed in range(2):
        figure = figures.draw("gamma_beta", trace, {"seed": str(seed)})
        for axis, start in ((figure.layout.yaxis, 1), (figure.layout.yaxis2, 0)):
            assert -100 < axis.range[0] < start < axis.range[1] < 100
        assert figure.layout.meta["note"].count("The axis is chosen for the") == 1


def test_a_variance_of_0_that_the_logarithmic_axis_cannot_show_is_named(trace):
    """As of a dead unit: its moving average falls for ever."""
    trace.values["batch_var", 1][:] = 0
    note = figures.draw("moving_averages", trace, {}).layout.meta["note"]
    assert "Not seen, as it is 0, which has no place on a logarithmic axis: mini-batch σ²." in note
    assert "Not seen" not in figures.draw("moving_averages", trace, {"scale": "linear"}).layout.meta["note"]


@pytest.mark.parametrize("same", [("mean",), ("mean", "var"), ()])
def test_a_gap_that_a_logarithmic_axis_cannot_show_is_named(trace, same):
    """With alpha = 0 the average is the mini-batch's: their line was in the legend and nowhere else."""
    symbols = {"mean": "μ̄", "var": "σ̄²"}
    for name in ("mean", "var"):
        trace.whole[1][1 if name == "mean" else 2][:] = 10.0 ** np.arange(4)[:, None, None, None]
    for name in same:
        trace.values[f"moving_{name}", 1] = trace.values[f"batch_{name}", 1]
    figure = figures.draw("moving_averages", trace, {})
    assert figure.layout.yaxis3.type == "log" and figure.layout.yaxis4.type == "log"
    words = " and ".join(f"moving − mini-batch of {symbols[name]}" for name in same)
    assert (f"logarithmic axis: {words}." in figure.layout.meta["note"]) == bool(same)
    assert ("Not seen" in figure.layout.meta["note"]) == bool(same)


def test_the_bands_of_the_legend_are_as_dark_as_on_the_chart(trace):
    """Where the inner band lies on the outer one it is darker, and both had the same sample."""
    data = figures.draw("gamma_beta", trace, {}).data
    samples = {t.name: float(t.fillcolor.split(",")[3][:-1]) for t in data if t.fill and t.showlegend}
    outer, inner = (float(t.fillcolor.split(",")[3][:-1]) for t in data if t.fill == "tonexty" and t.xaxis == "x")
    assert samples == {"5 to 95%": outer, "25 to 75%": pytest.approx(outer + inner * (1 - outer))}


def test_the_population_of_the_step_at_which_a_network_diverged_is_still_compared(trace):
    trace.diverged = {(1, 5): (20, 2)}
    np.testing.assert_array_equal(moving.moving(trace, 1, 1, 2, 3).mean.checked, [0, 10, 20])
