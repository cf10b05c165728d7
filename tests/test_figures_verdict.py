"""The verdict on the gradient flow is that of the norms which it is made from."""

import numpy as np
import pytest
from known_gradients import EXPERIMENT, N, flowing, shaped
from known_trace import KnownTrace
from looked_at import recorded

from bnlab.figures import means, verdict
from bnlab.figures.style import NO_STEPS


@pytest.mark.parametrize("depth", [2, 3, 15, 16, 40, 100])
@pytest.mark.parametrize("factor", [0.24, 1.0, 1.9])
def test_the_fitted_factor_is_the_one_that_made_the_norms(depth, factor):
    norms = 7.0 * factor ** (depth - np.arange(1, depth + 1))
    assert verdict.fitted_factor(norms) == pytest.approx(factor, rel=1e-9)


def test_the_ends_and_what_is_no_number_are_left_out_of_the_fit():
    norms = 0.5 ** (20 - np.arange(1, 21))
    norms[[0, 1, 2, 17, 18, 19]] *= 100
    norms[8], norms[9] = 0, np.inf
    assert verdict.fitted_factor(norms) == pytest.approx(0.5, rel=1e-9)
    assert np.isnan(verdict.fitted_factor(np.zeros(20)))


def test_a_fitted_factor_that_points_the_other_way_is_not_said():
    """It read "vanishing: ×1.17 per layer, dips to 0.0067"."""
    down = np.cumprod([1, *[1 / 12.2] * 2, *[1.62] * 9])[::-1]  # of layers 1 to 12; from the top it dips and comes back
    for norms, tone, words in ((down, "vanishing", "dips to 0.0067 of"), (1 / down, "exploding", "rises to 150 times")):
        told = verdict.verdict(shaped(norms, norms), 0)
        assert (told.factor > 1) == (tone == "vanishing"), "the case"
        assert told.words == f"{tone}: {words} layer 12's signal at layer 10"


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.24, "vanishing: ×0.24 per layer in the middle, layer 1 gets 1.7×10⁻¹² of layer 20's signal"),  # 0.24**19
        (1.0, "healthy gradient: layer 1 gets as much signal as layer 20"),
        (1.9, "exploding: ×1.90 per layer in the middle, layer 1 gets 200,000 times layer 20's signal"),
    ],
)
def test_the_verdict_says_what_layer_1_gets(factor, words):
    told = verdict.verdict(flowing(factor, 1), 0)
    assert told.words == words
    assert told.factor == pytest.approx(factor, rel=1e-5)
    assert told.steps == range(N - 1, N)


def test_the_verdict_names_what_is_no_number():
    assert verdict.verdict(KnownTrace(EXPERIMENT), 0).tone == "unknown"
    dead = flowing(1, 1)
    dead.values["signal_grad_norm", 0][..., :10] = 0
    told = verdict.verdict(dead, 0)
    assert told.words == "no gradient below layer 11"
    assert told.help == f"At step {N - 1} no signal gradient is recorded below layer 11."
    dead.values["signal_grad_norm", 0][:] = 0
    assert verdict.verdict(dead, 0).help.endswith("is recorded in any layer.")
    broken = flowing(1, 1, diverged={(0, 5): (12, 4)})
    broken.values["signal_grad_norm", 0][12:, 1] = np.nan
    told = verdict.verdict(broken, 0)
    assert told.words.startswith(
        "1 of 2 seeds diverged, first at step 12 in layer 4; the rest: healthy gradient: layer 1 gets as much "
    )
    assert told.tone == "diverged", "what diverged is not green"
    readout = flowing(1, 1, diverged={(0, 5): (N - 1, 0)})  # its layers were still in order
    assert verdict.verdict(readout, 0).words.startswith(f"1 of 2 seeds diverged, first at step {N - 1} in the readout")
    assert verdict.verdict(readout, 0, N - 2).words.startswith("healthy")
    assert verdict.verdict(flowing(1, 1, depth=1), 0).words == "one hidden layer"


@pytest.mark.parametrize(
    ("factor", "depth", "tone", "arrives"),
    [
        (0.86, 4, "healthy", "0.64 of"),
        (0.86, 100, "vanishing", "3.3×10⁻⁷ of"),
        (1.26, 4, "healthy", "2 times"),
        (1.26, 60, "exploding", "840,000 times"),
        (1.01, 100, "healthy", "2.7 times"),
        (0.4, 2, "healthy", "0.4 of"),
        (0.16, 2, "healthy", "0.16 of"),  # of two layers that learn
        (0.09, 2, "vanishing", "0.09 of"),
        (11, 2, "exploding", "11 times"),
        (0.1, 4, "vanishing", "0.001 of"),
    ],
)
def test_the_tone_is_what_arrives_over_the_whole_depth(factor, depth, tone, arrives):
    told = verdict.verdict(flowing(factor, 1, depth=depth), 0)
    assert told.tone == tone
    fitted = "per layer in the middle" if depth >= 16 else "per layer"  # where the ends are left out
    per_layer = f"×{factor:.2f} {fitted}, " if depth > 2 else ""  # of a single step the factor is what arrives
    words = f"{tone}: {per_layer}layer 1 gets {arrives} "
    if factor == 1.01:  # over a hundred layers 2.7 times
        assert told.words == "healthy gradient: layer 1 gets 2.7 times layer 100's signal, ×1.01 per layer on average"
    if tone == "healthy":
        words = f"healthy gradient: layer 1 gets {arrives} "
        assert told.words.endswith(f"'s signal, ×{factor:.2f} per layer on average")
    assert told.words.startswith(words)
    whole = f"over all {depth} layers. This is about the gradient alone; the loss shows whether the network learns."
    assert told.help.endswith(whole)


def test_why_there_is_no_gradient_is_said_where_it_is_recorded():
    nothing = np.zeros(4)
    trace = shaped(nothing, [0, 0, 1, 1])
    trace.values["weight_norm", 0] = np.ones((N, 2, 4))
    trace.values["dead", 0] = np.zeros((N, 2, 4))
    assert verdict.verdict(trace, 0).words == "no gradient below layer 3"  # of the seeds taken together
    trace.values["dead", 0][:, 0, 3] = trace.values["dead", 0][:, 1, 1] = 1
    assert verdict.verdict(trace, 0).words.endswith(", as all units of a layer are dead")
    trace.values["dead", 0][:, 1, 1] = 0.99
    assert verdict.verdict(trace, 0).words == "no gradient below layer 3"
    trace.diverged, trace.values["signal_grad_norm", 0][:, 1] = {(0, 5): (2, 1)}, np.nan
    words = "; the rest: no gradient in any layer, as all units of layer 4 are dead"
    assert verdict.verdict(trace, 0).words.endswith(words)
    trace.values["weight_norm", 0][:, 0, :3] = 0
    assert verdict.verdict(trace, 0).words.endswith(words), "weights are left in layer 4"
    trace.values["weight_norm", 0][:, 0] = 0
    assert verdict.verdict(trace, 0).words.endswith("; the rest: no gradient in any layer, as all weights are 0")


def test_a_layer_whose_units_are_all_saturated_is_no_healthy_one():
    """A sigmoid network with batch norm and a learning rate of 50, far above chance in its loss, was called healthy."""
    trace = flowing(0.8, 1, depth=4)
    trace.values["dead", 0] = dead = np.zeros((N, 2, 4))
    words = "layer 1 gets 0.51 of layer 4's signal, ×0.80 per layer on average"
    assert verdict.verdict(trace, 0).words == f"healthy gradient: {words}"
    dead[-1, 0, 2] = 0.99
    assert verdict.verdict(trace, 0).tone == "healthy"
    dead[-1, 0, 2] = 1
    told = verdict.verdict(trace, 0)
    assert (told.tone, told.words) == ("dead", f"all units of layer 3 are saturated in 1 of 2 seeds; {words}")
    dead[-1, 1, 2] = 1
    assert verdict.verdict(trace, 0).words == f"all units of layer 3 are saturated; {words}"
    dead[-1, 1, 0] = 1
    assert verdict.verdict(trace, 0).words == f"all units of 1 to 2 layers are saturated; {words}"
    low = flowing(0.1, 1, depth=4)
    low.values["dead", 0] = dead
    told = verdict.verdict(low, 0)
    assert told.tone == "vanishing" and told.words.endswith(
        " of layer 4's signal; all units of 1 to 2 layers are saturated"
    )


def test_a_signal_too_small_for_float32_vanishes_and_is_not_dead():
    faint = flowing(0.23, 1, depth=100)
    assert (faint.values["signal_grad_norm", 0][..., 0] == 0).all(), "the test's own numbers underflow"
    told = verdict.verdict(faint, 0)
    assert told.words == "vanishing: ×0.23 per layer in the middle, layer 1's signal is below what float32 holds"
    assert told.tone == "vanishing"


def test_the_mean_over_the_seeds_is_geometric():
    np.testing.assert_allclose(means.geometric_norm(np.array([[1e-8, 1, 0], [1e-4, 4, 0]])), [1e-6, 2, 0])
    some = np.array([[1e-8, np.nan, np.inf], [np.nan, np.nan, 1]])
    np.testing.assert_allclose(means.geometric_norm(some), [1e-8, np.nan, np.inf])
    np.testing.assert_allclose(means.geometric_norm(some.T, axis=1), [1e-8, np.nan, np.inf])


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        (
            [1.5, *0.82 ** np.arange(98, 0, -1), 1],
            "vanishing: ×0.82 per layer in the middle, dips to 3.6×10⁻⁹ of layer 100's signal at",
        ),
        (
            [0.01, *1.2 ** np.arange(98, 0, -1), 1],
            "exploding: ×1.20 per layer in the middle, rises to 5.8×10⁷ times layer 100's signal",
        ),
        ([0.04, 0.2, 1], "vanishing: ×0.20 per layer, layer 1 gets 0.04 of layer 3's signal"),
        ([0.00256**2, 0.00256, 1], "vanishing: ×0.0026 per layer, layer 1 gets 6.6×10⁻⁶ of layer 3's signal"),
        ([0.998, 1.001, 0.999, 1], "healthy gradient: layer 1 gets as much signal as layer 4"),
        ([130 * 0.5, 30, 8, 1, 0.5], "exploding: ×3.72 per layer, layer 1 gets 130 times layer 5's signal"),
    ],
)
def test_the_verdict_agrees_with_the_whole_profile(norms, words):
    told = verdict.verdict(shaped(norms), 0)
    assert told.words.startswith(words)
    assert told.words.startswith(told.tone)


def test_what_layer_1_gets_is_the_mean_factor_of_all_layers_where_it_is_healthy():
    """Fitted are ×1.04 per layer, and layer 1 gets half as much: one pointed up and the other down."""
    norms = [0.4, 3, 2.8, 2.6, 2.4, 2.2, 2, 1.6, 1.2, 0.8]
    told = verdict.verdict(shaped(norms), 0)
    assert told.factor > 1.02
    mean = (0.4 / 0.8) ** (1 / 9)
    assert told.words == f"healthy gradient: layer 1 gets 0.5 of layer 10's signal, ×{mean:.2f} per layer on average"


def test_a_factor_of_one_is_not_said_beside_a_little_more():
    """1.1 times and ×1.00 per layer seem to contradict each other."""
    words = verdict.verdict(flowing(1.08 ** (1 / 19), 1), 0).words
    assert words == "healthy gradient: layer 1 gets 1.1 times layer 20's signal"


@pytest.mark.parametrize("depth", [15, 16])
def test_the_ends_are_left_out_of_sixteen_layers_and_more(depth):
    norms = 0.5 ** (depth - np.arange(1, depth + 1))
    norms[[0, 1, 2]] *= 100
    told = verdict.verdict(shaped(norms, norms), 0)
    assert (told.factor == pytest.approx(0.5, rel=1e-5)) == (depth == 16)
    assert ("per layer in the middle" in told.words) == (depth == 16)
    assert ("excluding the first three and last three layers" in told.help) == (depth == 16)


@pytest.mark.parametrize(
    ("factor", "tone"), [(2.9, "healthy"), (3.1, "exploding"), (1 / 2.9, "healthy"), (1 / 3.1, "vanishing")]
)
def test_threefold_per_layer_is_steep(factor, tone):
    assert verdict.verdict(flowing(factor, 1, depth=4), 0).tone == tone


@pytest.mark.parametrize(("end", "words"), [(2e-4, "layer 1 gets 2×10⁻⁴ of"), (4e-4, "dips to 1×10⁻⁴ of")])
def test_a_signal_that_ends_near_its_dip_is_told_where_it_ends(end, words):
    norms = np.array([end, 1e-4, 1e-2, 1])
    assert words in verdict.verdict(shaped(norms, norms), 0).words


@pytest.mark.parametrize(
    ("norms", "arrives"),
    [
        ([0.001, 0.05, 1, 50, 1], "0.001 of layer 5's signal"),  # far below the top itself
        ([0.1, 1, 50, 1], "0.002 of layer 3's signal"),  # a tenth of the top is healthy; it is the way down that is not
    ],
)
def test_what_arrives_is_told_of_the_top_where_that_is_enough_and_else_of_where_the_way_began(norms, arrives):
    norms = np.array(norms)
    assert verdict.verdict(shaped(norms), 0).words.endswith(f"layer 1 gets {arrives}")
    share, layer = arrives.split(" of ")
    risen = f"{1 / float(share):,.0f} times {layer}"
    assert verdict.verdict(shaped(1 / norms), 0).words.endswith(f"layer 1 gets {risen}")


def test_the_layer_up_to_which_float32_does_not_hold_the_signal_is_named():
    told = verdict.verdict(shaped([np.inf, np.inf, 100, 10, 1]), 0)
    assert (told.tone, told.words) == ("exploding", "exploding: ×10.00 per layer, above what float32 holds in layer 2")


def test_a_run_of_no_steps_says_so_and_not_that_none_is_recorded_yet(store):
    told = verdict.verdict(recorded(store, steps=0), 0)
    assert (told.tone, told.help) == ("unknown", NO_STEPS)
