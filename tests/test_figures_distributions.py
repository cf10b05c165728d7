"""The figures of distributions show the percentiles that plain numpy finds in the raw values."""

import re

import numpy as np
import pytest
import torch
from known_trace import KnownTrace
from looked_at import trained

from bnlab import figures
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import distributions
from bnlab.group import Group
from bnlab.record import sample_at

SEEDS, L, M, N = 2, 5, 16, 300
ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}))
EXPERIMENT = Experiment(settings=Settings(depth=L, width=4, steps=N, batch_size=4), arms=ARMS, seeds=(3, 5))


@pytest.fixture
def trace():
    rng = np.random.default_rng(0)
    values = {}
    for arm in range(2):
        for name in ("a_sample", "z_sample"):
            values[name, arm] = rng.normal(size=(N, SEEDS, L, M)).astype(np.float32)
        for name in ("saturated", "dead"):
            values[name, arm] = rng.uniform(size=(N, SEEDS, L)).astype(np.float32)
    return KnownTrace(EXPERIMENT, values)


def test_percentiles_over_time_are_those_of_neighboring_steps_of_all_seeds(trace):
    told = distributions.spread(trace, "z", 1, 2)
    rows = trace.read("z_sample", 1, layer=2, points=2 * distributions.POINTS)
    together = -(-len(rows.steps) // distributions.POINTS)
    assert together > 1 and len(told.steps) <= distributions.POINTS and told.size == together * SEEDS * M
    for i in (0, 7, len(told.steps) - 1):
        pool = rows.mean[i * together : (i + 1) * together]
        np.testing.assert_allclose(told.bands[i], np.percentile(pool, [5, 15, 50, 85, 95]), rtol=1e-4, atol=1e-6)
        inside = rows.steps[i * together : (i + 1) * together]
        assert told.steps[i] in inside and abs(told.steps[i] - inside.mean()) < 1, "in the middle of its steps"


def test_the_variance_is_parted_into_that_between_examples_and_that_between_units():
    """Of units whose means and whose values around them are drawn with known variances, 3 and 1."""
    settings = Settings(depth=1, width=64, steps=N, batch_size=128)
    rng, places = np.random.default_rng(0), np.array(sample_at(128, 64))
    means = rng.normal(size=(1, 2, 1, 64)) * np.sqrt(3)
    means *= np.sqrt(3) / means.std(3, keepdims=True)  # exactly
    values = {}
    for arm, noise in enumerate((1.0, 0.0, 1e-6)):
        values["a_sample", arm] = means[..., places % 64] + noise * rng.normal(size=(N, 2, 1, 128))
    arms = tuple(Arm(label=f"{noise}") for noise in ("some", "none", "hardly any"))
    known = KnownTrace(Experiment(settings=settings, arms=arms, seeds=(3, 5)), values)
    assert distributions.among_examples(known, "a", 0, 1) == pytest.approx(0.25, abs=0.01)
    assert distributions.among_examples(known, "a", 1, 1) < 1e-12
    assert distributions.among_examples(known, "a", 2, 1) == pytest.approx(1e-12 / 3, rel=0.1)
    moving = {("a_sample", 0): values["a_sample", 1] + rng.normal(size=(N, 1, 1, 64))[..., places % 64]}
    drifts = KnownTrace(Experiment(settings=settings, arms=arms[:1], seeds=(3, 5)), moving)
    assert distributions.among_examples(drifts, "a", 0, 1) < 1e-12, "units that move from step to step are not examples"
    wide = settings.model_copy(update={"width": 280})
    some = {("a_sample", 0): rng.normal(size=(N, 2, 1, 128))}
    alone = KnownTrace(Experiment(settings=wide, arms=arms[:1], seeds=(3, 5)), some)
    assert np.isnan(distributions.among_examples(alone, "a", 0, 1)), "no unit comes up twice in a step"
    note = figures.draw("distributions", known, {"layer": "1"}).layout.meta["note"]
    assert "between examples, about, at the newest steps: some 25%, none 0%, hardly any 0%. The rest" in note


def test_the_share_between_examples_is_that_of_a_whole_mini_batch(tmp_path):
    """Against all values of one, of networks that hardly learn; batch norm leaves no variance between units."""
    arms = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}))
    settings = Settings(depth=3, width=32, steps=40, batch_size=128, activation="linear", learning_rate=1e-9)
    store, run_id = trained(tmp_path, settings, arms)
    trace, group = store.trace(run_id), Group(Experiment(settings=settings, arms=arms), 0, "cpu", torch.float32)
    group.stack.forward(group.mini_batch(0)[0])
    for which, values in (("a", group.stack.a), ("z", group.stack.out)):
        whole = values.double().var((2, 3), correction=0)
        for layer in (1, 2, 3):
            for slot, arm in enumerate(group.stack.networks):
                among = values[layer - 1, slot].double().var(0, correction=0).mean() / whole[layer - 1, slot]
                told = distributions.among_examples(trace, which, arm.arm, layer)
                assert told == pytest.approx(float(among), abs=0.15), (which, layer, arm)
    assert distributions.among_examples(trace, "z", 1, 3) > 0.85


def test_below_the_mouse_stand_all_five_percentiles(trace):
    told = distributions.spread(trace, "a", 1, 2)
    (line,) = [one for one in figures.draw("distributions", trace, {"layer": "2"}).data if one.name == "BN"]
    np.testing.assert_array_equal(np.asarray(line.y), told.bands[:, 2])
    said = line.hovertemplate.split("<br>")
    for place, (name, low, high) in enumerate([("15 to 85%", 1, 3), ("5 to 95%", 0, 4)], 1):
        first, last = (int(column) for column in re.findall(r"customdata\[(\d)\]", said[place]))
        assert said[place].startswith(f"{name}: ")
        np.testing.assert_array_equal(line.customdata[:, first], told.bands[:, low])
        np.testing.assert_array_equal(line.customdata[:, last], told.bands[:, high])


@pytest.mark.parametrize(("n", "bare"), [(1, []), (3, []), (4, [1]), (5, [1, 2]), (6, [1, 2, 3])])
def test_panels_without_one_below_have_ticks_and_a_title_of_steps(n, bare):
    arms = tuple(Arm(label=str(i), changes={"learning_rate": 0.1 + i}) for i in range(n))
    values = {("a_sample", i): np.ones((3, SEEDS, L, M), np.float32) for i in range(n)}
    figure = figures.draw("distributions", KnownTrace(EXPERIMENT.model_copy(update={"arms": arms}), values), {})
    drawn = sorted({int(line.xaxis[1:] or 1) for line in figure.data})
    axes = {i: figure.layout[f"xaxis{i}" if i > 1 else "xaxis"] for i in drawn}
    assert len(axes) == n
    assert [i for i, axis in axes.items() if axis.title.text != "step"] == bare
    assert [i for i, axis in axes.items() if axis.showticklabels is False] == bare


def test_a_network_that_diverged_is_left_out_of_the_percentiles(trace):
    trace.values["a_sample", 0][40:, 1] = np.nan
    told = distributions.spread(trace, "a", 0, 1)
    rows = trace.read("a_sample", 0, layer=1, points=2 * distributions.POINTS).mean
    together = -(-len(rows) // distributions.POINTS)
    last = rows[(len(told.steps) - 1) * together :, 0]
    np.testing.assert_allclose(told.bands[-1], np.percentile(last, [5, 15, 50, 85, 95]), rtol=1e-4, atol=1e-6)


def test_a_histogram_counts_the_middle_of_the_values():
    values = np.random.default_rng(1).normal(size=20_000)
    told = distributions.histogram(values)
    ordered = np.sort(values)
    assert (
        ordered[90] < told.edges[0] < ordered[110]
        and ordered[-110] < told.edges[-1] < ordered[-90]
        and told.size == 20_000
    )
    assert told.share.sum() == pytest.approx(0.99, abs=1e-3)
    inside = ((values >= told.edges[10]) & (values < told.edges[11])).mean()
    assert told.share[10] == pytest.approx(inside)


def test_a_histogram_of_one_value_of_none_and_of_infinities():
    told = distributions.histogram(np.full(10, 0.5))
    assert told.share.sum() == 1 and told.edges[0] < 0.5 < told.edges[-1]
    assert distributions.histogram(np.zeros(3)).share.sum() == 1
    told = distributions.histogram(np.array([np.inf, np.nan, 1.0, 2.0, -np.inf]))
    assert told.size == 5 and told.share.sum() == pytest.approx(2 / 5)
    told = distributions.histogram(np.array([np.nan, np.inf]))
    assert told.size == 2 and not len(told.share)
    assert distributions.histogram(np.array([-3e38, 3e38], np.float32)).share.sum() == 1


def test_the_bins_of_a_single_value_lie_around_it():
    edges = distributions.histogram(np.full(10, 0.5)).edges
    assert edges[0] < 0.5 < edges[-1] and (edges[0] + edges[-1]) / 2 == pytest.approx(0.5)


def test_where_a_window_has_no_sample_the_nearest_row_of_the_layer_makes_the_histogram(trace):
    class Thinned(KnownTrace):
        def read(self, quantity, arm, **window):
            return super().read(quantity, arm, **window | {"stop": window["start"]})

    steps, values = distributions.pooled(Thinned(EXPERIMENT, trace.values), "z", 1, 12, layer=3)
    assert steps.tolist() == [12]
    np.testing.assert_array_equal(values, trace.values["z_sample", 1][12:13, :, 2])


def test_an_arm_without_a_finite_value_has_no_ridge_beside_one_that_has_some(trace):
    trace.values["a_sample", 0][:] = np.nan
    (ridge,) = figures.draw("histograms", trace, {"over": "arms"}).data
    assert ridge.name == "BN"


def test_a_histogram_pools_the_steps_before_it(trace):
    steps, told = distributions.layer_histograms(trace, "a", 1, 100)
    pool = trace.values["a_sample", 1][85:101]
    assert [*steps] == [*range(85, 101)] and list(told) == [1, 2, 3, 4, 5]
    for l, one in told.items():
        wanted = distributions.histogram(pool[:, :, l - 1])
        np.testing.assert_array_equal(one.share, wanted.share)
        assert one.size == 16 * SEEDS * M
    steps, arms = distributions.arm_histograms(trace, "a", 4, 100)
    np.testing.assert_array_equal(arms[1].edges, told[4].edges)


def test_notes_say_which_steps_are_pooled(trace):
    note = figures.draw("histograms", trace, {"arm": "1", "step": "100"}).layout.meta["note"]
    size = 16 * SEEDS * M
    assert f"BN at steps 85 to 100: a sample of {size} values each over the seeds, scaled" in note
    assert (
        "none at step 0: a sample of 32 values" in figures.draw("histograms", trace, {"step": "0"}).layout.meta["note"]
    )
    told = distributions.spread(trace, "a", 0, 1)
    assert (told.size, told.rows, told.apart) == (4 * SEEDS * M, 4, 1)
    note = figures.draw("distributions", trace, {}).layout.meta["note"]
    assert "each of a sample of 128 values of 4 steps over the seeds. Share of the variance between examples" in note
    many = {key: np.concatenate([rows] * 4) for key, rows in trace.values.items()}
    note = figures.draw("distributions", KnownTrace(EXPERIMENT, many), {}).layout.meta["note"]
    assert "each of a sample of 96 values of 3 steps that are up to 6 apart over the seeds. Share" in note
    assert distributions.named(np.array([0, 4, 6])) == "steps 0 to 6, up to 4 apart"


def test_of_many_layers_every_second_or_third_has_a_histogram_and_the_last(monkeypatch):
    for depth, layers in ((24, range(1, 25)), (30, [*range(1, 30, 2), 30]), (50, [*range(1, 50, 3), 50])):
        values = np.random.default_rng(0).normal(size=(2, 1, depth, 8))
        monkeypatch.setattr(distributions, "pooled", lambda *_, values=values: (np.arange(2), values))
        assert [*distributions.layer_histograms(None, "a", 0, 1)[1]] == [*layers]


FIGURES = ("distributions", "histograms", "saturation")


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_without_steps_is_a_sentence(trace, name):
    none = EXPERIMENT.model_copy(update={"settings": Settings(depth=L, width=4, steps=0)})
    empty = KnownTrace(none, {key: rows[:0] for key, rows in trace.values.items()})
    empty.step = 0
    assert "has no steps" in figures.draw(name, empty, {}).layout.annotations[0].text


def test_ridges_are_labeled_with_layers_or_with_whole_labels(trace):
    arms = (Arm(label="layer norm", changes={"norm": "layer"}), Arm(label='"x" <b>'))
    trace.experiment = EXPERIMENT.model_copy(update={"arms": arms})
    ticks = [figures.draw("histograms", trace, {"over": over}).layout.yaxis.ticktext for over in ("arms", "layers")]
    assert ticks == [("layer norm", '"x" &lt;b&gt;'), ("1", "2", "3", "4", "5")]  # plotly knows no &quot;


@pytest.mark.parametrize("name", FIGURES)
def test_networks_that_diverged_are_named(trace, name):
    trace.diverged = {(1, 5): (30, 2), (1, 3): (20, 2), (0, 3): (40, 1)}
    note = figures.draw(name, trace, {}).layout.meta["note"]
    assert note.endswith(" none diverged at step 40 (1 of 2 seeds). BN diverged at step 20 (2 of 2 seeds).")


def test_histograms_open_on_the_first_arm_that_lasts_and_another_one_names_it(trace):
    trace.diverged = {(0, 3): (30, 2)}
    assert figures.draw("histograms", trace, {}).layout.meta["note"].startswith("Pre-activations a of none")
    trace.diverged[0, 5] = (20, 2)
    assert figures.draw("histograms", trace, {}).layout.meta["note"].startswith("Pre-activations a of BN")
    trace.values["a_sample", 0][31:] = np.nan
    words = figures.draw("histograms", trace, {"arm": "0"}).layout.meta["said"]
    assert words.endswith("none diverged at step 20 (2 of 2 seeds). Not diverged by then: BN.")


def test_a_long_label_stands_above_its_panel_in_two_lines(trace):
    trace.experiment = EXPERIMENT.model_copy(update={"arms": (Arm(label="a <b> " + 6 * "word " + "x"), ARMS[1])})
    long, short = (words.text for words in figures.draw("distributions", trace, {}).layout.annotations)
    assert long.replace("<br>", " ") == "a &lt;b&gt; word word word word word word x" and short == "BN"
    lines = long.replace("&lt;", "<").replace("&gt;", ">").split("<br>")
    assert len(lines) == 2 and max(map(len, lines)) < 25


@pytest.mark.parametrize("lost", [1, 2])
def test_the_axis_is_that_of_networks_that_last(trace, lost):
    seeds = EXPERIMENT.seeds
    trace.diverged = {(arm, seeds[i]): (30, 2) for arm in range(len(EXPERIMENT.arms)) for i in range(lost)}
    for name in ("a_sample", "z_sample"):
        for arm in range(len(EXPERIMENT.arms)):
            trace.values[name, arm][30, :lost] *= 1e20
            trace.values[name, arm][31:, :lost] = np.nan
    figure = figures.draw("distributions", trace, {})
    low, high = figure.layout.yaxis.range
    assert -100 < low < high < 100
    words = "that did not diverge" if lost == 1 else "for the start, before the networks diverged"
    assert words in figure.layout.meta["note"]


def test_the_axis_is_not_that_of_the_last_network_of_an_arm_of_which_most_diverged(trace):
    seeds = (*EXPERIMENT.seeds, 7)
    trace.experiment = EXPERIMENT.model_copy(update={"seeds": seeds})
    trace.values = {key: np.concatenate([values, values[:, :1]], 1) for key, values in trace.values.items()}
    trace.diverged = {(0, seed): (30, 2) for seed in seeds[:2]}
    trace.values["a_sample", 0][20:, 2] *= 1e5
    figure = figures.draw("distributions", trace, {})
    low, high = figure.layout.yaxis.range
    assert -100 < low < high < 100
    assert "did not diverge, without those of arms of which most did: none." in figure.layout.meta["note"]


def test_an_arm_that_is_far_wider_does_not_press_the_others_to_lines():
    rng = np.random.default_rng(0)
    arms = tuple(Arm(label=str(i), changes={"learning_rate": 0.1 + i}) for i in range(3))
    sizes = (1000, 1, 1e-4)  # the last has collapsed, and shall look like it
    values = {
        ("a_sample", i): (size * rng.normal(size=(9, SEEDS, L, M))).astype(np.float32) for i, size in enumerate(sizes)
    }
    figure = figures.draw("distributions", KnownTrace(EXPERIMENT.model_copy(update={"arms": arms}), values), {})
    axes = [figure.layout.yaxis, figure.layout.yaxis2, figure.layout.yaxis3]
    assert [axis.matches for axis in axes] == [None, None, "y2"]
    assert all(axis.showticklabels for axis in axes)
    assert "On an axis of its own, as it is more than tenfold wider: 0." in figure.layout.meta["note"]


@pytest.mark.parametrize("sizes", [(1, 1, 4), (1, 1e-4), (0.3, 1e-6, 1e-9)])
def test_arms_of_like_widths_or_collapsed_ones_share_an_axis(sizes):
    assert distributions.wide({i: size * np.array([[-1.0, 1]]) for i, size in enumerate(sizes)}) == []


def test_a_wide_arm_beside_one_that_diverged_leaves_the_others_their_axis(trace):
    arms = tuple(Arm(label=str(i), changes={"learning_rate": 0.1 + i}) for i in range(3))
    rng, sizes = np.random.default_rng(0), (1, 1e15, 1)
    values = {
        ("a_sample", i): (size * rng.normal(size=(9, SEEDS, L, M))).astype(np.float32) for i, size in enumerate(sizes)
    }
    values["a_sample", 0][1] = 1e30
    values["a_sample", 0][2:] = np.nan
    trace = KnownTrace(EXPERIMENT.model_copy(update={"arms": arms}), values)
    trace.diverged = {(0, seed): (2, "layer 1") for seed in EXPERIMENT.seeds}
    figure = figures.draw("distributions", trace, {})
    axes = [figure.layout.yaxis, figure.layout.yaxis2, figure.layout.yaxis3]
    assert [axis.matches for axis in axes] == [None, None, "y"]
    assert max(axes[2].range) < 10 and axes[1].range is None
