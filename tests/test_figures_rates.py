"""The band over learning rates is that of the recorded losses."""

import numpy as np
from looked_at import trained

from bnlab import Arm, Settings, figures
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
