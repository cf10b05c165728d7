"""The band over learning rates is that of the recorded losses."""

import numpy as np
from known_trace import KnownTrace
from looked_at import trained

from bnlab import Arm, Experiment, Settings, figures
from bnlab.figures import means, rates

RATES = tuple(
    Arm(label=f"{label}, η = {rate:g}", changes=changes | {"learning_rate": rate})
    for label, changes in (("plain", {}), ("BN", {"norm": "batch"}))
    for rate in (0.01, 0.3, 3.0)
)


def test_a_band_of_which_all_have_diverged_has_no_width_and_warns_nobody(tmp_path):
    wild = {"init_gain": 30.0, "activation": "relu"}
    arms = tuple(Arm(label=f"η = {rate:g}", changes=wild | {"learning_rate": rate}) for rate in (50.0, 100.0))
    store, run_id = trained(tmp_path, Settings(depth=3, width=8, data="diabetes", steps=12), arms)
    trace = store.trace(run_id)
    assert {arm for arm, _ in trace.diverged} == {0, 1}
    (band,) = rates.bands(trace)
    assert np.isinf(band.low[-1]) and "at the end" not in figures.draw("learning_rates", trace, {}).layout.meta["note"]


def test_the_band_over_learning_rates_spans_the_losses_of_the_arms(tmp_path):
    settings = Settings(depth=6, width=32, activation="relu", init="he", steps=30)
    store, run_id = trained(tmp_path, settings, RATES)
    trace = store.trace(run_id)
    assert {arm for arm, _ in trace.diverged} == {2}
    plain, normed = rates.bands(trace)
    assert (plain.arms, normed.arms) == ((0, 1, 2), (3, 4, 5)) and plain.rates == (0.01, 0.3, 3)
    each = np.stack([means.present(np.array(trace.read("loss", arm).mean), 1) for arm in (3, 4, 5)])
    mean = np.stack([[line[max(0, t - 9) : t + 1].mean() for t in range(30)] for line in each])
    np.testing.assert_allclose(normed.low, mean.min(0), rtol=1e-5)
    np.testing.assert_allclose(normed.high, mean.max(0), rtol=1e-5)
    assert np.isinf(plain.high[-1]) and np.isfinite(plain.low[-1])  # left out, the band would look narrow
    assert normed.window == 10
    drawn = figures.draw("learning_rates", trace, {})
    assert [t.name for t in drawn.data if t.showlegend] == ["plain", "BN"]
    assert "plain: η = 0.01, 0.3, 3, at the end without a top." in drawn.layout.meta["note"]
    assert "drawn as the band's upper end from there on" in drawn.layout.meta["note"]


def flat(*losses, diverged=None):
    """A trace of two learning rates whose losses stand still."""
    arms = tuple(Arm(label=f"η = {rate:g}", changes={"learning_rate": rate}) for rate in (0.1, 0.2))
    experiment = Experiment(settings=Settings(depth=1, width=4, steps=30), arms=arms, seeds=(3, 5))
    values = {("loss", arm): np.full((30, 2), loss) for arm, loss in enumerate(losses)}
    return KnownTrace(experiment, values, diverged=diverged)


def test_a_band_has_no_top_from_where_the_first_of_its_networks_diverged():
    trace = flat(0.5, 1.25, diverged={(1, 3): (10, 1), (1, 5): (20, 1)})
    (band,) = rates.bands(trace)
    np.testing.assert_array_equal(band.low, [0.5] * 30)
    np.testing.assert_array_equal(band.high, [1.25] * 11 + [np.inf] * 19)
    low, high = (line.y for line in figures.draw("learning_rates", trace, {}).data if line.hovertemplate)
    np.testing.assert_array_equal(low, band.low)
    np.testing.assert_array_equal(high, [1.25] * 11 + [2.5] * 19, "twice the greatest")
    assert (
        "η = 0.1, 0.2, at the end ×2.5 wide." in figures.draw("learning_rates", flat(0.5, 1.25), {}).layout.meta["note"]
    )


def test_a_band_of_networks_that_had_no_loss_from_the_start_is_drawn_without_one():
    trace = flat(np.nan, np.nan, diverged={(arm, seed): (0, 1) for arm in (0, 1) for seed in (3, 5)})
    drawn = figures.draw("learning_rates", trace, {})
    assert "diverged at step 0" in drawn.layout.meta["note"]
    assert not any(np.isfinite(np.array(line.y[:1], float)).any() for line in drawn.data if line.hovertemplate)


def test_two_bands_whose_labels_share_the_same_words_are_named_in_full():
    labels = ("net a", "net b"), ("net c", "net d")
    arms = tuple(
        Arm(label=label, changes={"norm": norm, "learning_rate": rate})
        for both, norm in zip(labels, ("none", "batch"), strict=True)
        for label, rate in zip(both, (0.1, 0.2), strict=True)
    )
    trace = KnownTrace(
        Experiment(settings=Settings(depth=1, width=4, steps=30), arms=arms),
        {("loss", arm): np.ones((30, 1)) for arm in range(4)},
    )
    assert rates.names(trace, rates.bands(trace)) == ["net a + net b", "net c + net d"]


def test_what_labels_share_is_cut_before_it_is_made_safe_for_plotly(tmp_path):
    """'B & η = 0.1' and 'B & η = 0.2' were called 'B &amp', an entity without its end."""
    arms = tuple(Arm(label=f"B & η = {rate:g}", changes={"learning_rate": rate}) for rate in (0.1, 0.2))
    settings = Settings(depth=1, width=4, data="wine", batch_size=16, steps=3)
    store, run_id = trained(tmp_path, settings, arms)
    drawn = figures.draw("learning_rates", store.trace(run_id), {})
    assert {"B &amp;"} == {line.name.split(":")[0] for line in drawn.data if line.name}
