"""The figures of the gradient flow, at one step and over time."""

import numpy as np
import pytest
from known_gradients import EXPERIMENT, L, N, flowing, shaped

from bnlab import figures
from bnlab.experiment import Arm, Settings
from bnlab.figures import gradients, style, verdict


def test_the_flow_shows_every_layer_of_every_arm_at_the_chosen_step():
    trace = flowing(0.5, 1.1)
    figure = figures.draw("gradient_flow", trace, {"step": "7"})
    for column, quantity in ((1, "signal_grad_norm"), (2, "grad_norm")):
        lines = [d for d in figure.data if d.mode == "lines+markers" and d.yaxis == ("y", "y2")[column - 1]]
        for arm, line in enumerate(lines):
            by_hand = np.sqrt(trace.values[quantity, arm][7].prod(0, dtype=float))  # two seeds
            np.testing.assert_allclose(line.y, by_hand, rtol=1e-5)
            assert (line.line.color, line.line.dash) == (style.color(arm), style.dash(arm))
    assert figure.layout.yaxis.type == "log"
    lines = figure.layout.meta["note"].split("\n")
    labels = [arm.label for arm in EXPERIMENT.arms]
    assert lines[0] == "Signal gradient at step 7." and [line.partition(":")[0] for line in lines[1:3]] == labels
    last = gradients.gradient_flow(trace, step=N, scale="log").layout.meta["note"]
    told = "The cards tell the newest steps together, up to 20."  # whose verdict may be another
    assert last.startswith(f"Signal gradient at step {N - 1}, that of the last update. {told}\n")


def test_zeros_and_infinities_are_marks_beside_the_line_and_named_below_it():
    trace = flowing(1, 0.5)
    trace.values["signal_grad_norm", 0][..., :4] = 0
    trace.values["signal_grad_norm", 0][..., 7] = np.inf
    figure = figures.draw("gradient_flow", trace, {})
    line, *_ = (d for d in figure.data if d.mode == "lines+markers")
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(line.y)), [0, 1, 2, 3, 7])
    least, greatest = trace.values["signal_grad_norm", 1][-1], trace.values["signal_grad_norm", 0][-1, :, 10]
    zeros, infinities = (d for d in figure.data if d.mode == "markers")
    np.testing.assert_array_equal(zeros.x, [1, 2, 3, 4])
    np.testing.assert_array_equal(infinities.x, [8])
    assert max(zeros.y) < np.sqrt(least.prod(0, dtype=float)).min()
    assert min(infinities.y) > np.sqrt(greatest.prod(dtype=float))
    assert "× at the bottom: 0. × at the top: infinite." in figure.layout.meta["note"]
    assert "×" not in figures.draw("gradient_flow", flowing(1, 1), {}).layout.meta["note"].replace("×1.00", "")
    linear = figures.draw("gradient_flow", trace, {"scale": "linear"}).data
    assert [d.x.tolist() for d in linear if d.mode == "markers"] == [[8]]


def test_nothing_is_drawn_of_a_network_that_has_diverged():
    trace = flowing(1, 1, diverged={(0, 3): (12, 4), (0, 5): (14, 2), (1, 5): (20, 1)})
    for quantity in gradients.NORMS:
        trace.values[quantity, 0][13:, 0] = np.nan
        trace.values[quantity, 0][15:, 1] = np.nan
        trace.values[quantity, 1][21:, 1] = np.nan
    figure = figures.draw("gradient_flow", trace, {"step": "25"})
    both, half = [d for d in figure.data if d.mode == "lines+markers"][:2]
    assert np.isnan(both.y).all() and not [d for d in figure.data if d.mode == "markers"]
    np.testing.assert_allclose(half.y, trace.values["signal_grad_norm", 1][25, 0], rtol=1e-6)
    assert "none: both seeds diverged, first at step 12 in layer 4." in figure.layout.meta["note"]
    assert (
        "BN: 1 of 2 seeds diverged, first at step 20 in layer 1; the rest: healthy gradient: "
        in figure.layout.meta["note"]
    )
    before = figures.draw("gradient_flow", trace, {"step": "11"}).layout.meta["note"]
    assert "none: healthy gradient" in before


def test_a_run_without_steps_says_so():
    trace = flowing(1, 1)
    trace.experiment = EXPERIMENT.model_copy(update={"settings": Settings(depth=L, width=4, steps=0)})
    trace.values, trace.step = {}, 0
    for name in ("gradient_flow", "gradient_heatmap"):
        assert "has no steps" in figures.draw(name, trace, {}).layout.annotations[0].text


@pytest.mark.parametrize("name", ["gradient_flow", "gradient_heatmap"])
def test_layers_are_whole_numbers(name):
    figure = figures.draw(name, flowing(1, 1, depth=3), {})
    assert (figure.layout.xaxis if name == "gradient_flow" else figure.layout.yaxis).dtick == 1


def test_the_heat_map_holds_the_logarithm_of_every_layer_and_step():
    trace = flowing(0.5, 1)
    trace.values["grad_norm", 0][3, :, 4] = 0
    steps, z = gradients.heat(trace, "grad_norm", 0)
    np.testing.assert_array_equal(steps, range(N))
    assert np.isnan(z[4, 3]) and np.isnan(z).sum() == 1
    raw = trace.values["grad_norm", 0].astype(float)
    raw[3, :, 4] = np.nan
    np.testing.assert_allclose(z, np.log10(np.sqrt(raw[:, 0] * raw[:, 1])).T, rtol=1e-6, atol=1e-6)


def test_all_arms_share_one_color_scale():
    figure = figures.draw("gradient_heatmap", flowing(0.1, 1), {"which": "signal_grad_norm"})
    assert len(figure.data) == 2 and all(d.coloraxis == "coloraxis" for d in figure.data)
    assert figure.layout.coloraxis.cmin == pytest.approx(np.log10(2 * 3**0.5 * 0.1**19), abs=1e-4)


def test_where_all_is_blank_the_axes_are_those_of_the_layers_and_steps():
    trace = flowing(0.5, 1)
    trace.values["grad_norm", 0][:] = np.nan
    axes = figures.draw("gradient_heatmap", trace, {"which": "grad_norm"}).layout
    assert (axes.xaxis.range, axes.yaxis.range) == ((0, N), (0.5, 20.5))
    assert axes.yaxis2.range is None


def test_seeds_without_a_gradient_are_counted_and_leave_the_others_alone():
    flow, dead = 0.8 ** np.arange(3, -1, -1.0), [0, 0, 0.5, 1]
    trace = shaped(flow, dead, flow, seeds=(3, 5, 7))
    told = verdict.verdict(trace, 0)
    assert told.words.endswith("; 1 of 3 seeds has no gradient") and "×0.8" in told.words
    assert told.tone == "dead"
    assert verdict.verdict(shaped(dead, dead), 0).words.startswith("no gradient ")
    figure = figures.draw("gradient_flow", trace, {})
    line, zeros = (next(d for d in figure.data if d.mode == mode) for mode in ("lines+markers", "markers"))
    np.testing.assert_allclose(line.y[:2], flow[:2], rtol=1e-6)
    assert zeros.x.tolist() == [1, 2] and "0 in %{customdata} of 3 seeds" in zeros.hovertemplate
    assert "× at the bottom: 0 in one seed or more." in figure.layout.meta["note"]
    _, z = gradients.heat(trace, "signal_grad_norm", 0)
    np.testing.assert_allclose(z[0], np.log10(flow[0]), rtol=1e-5)
    assert "in some seeds the color is the others'" in figures.draw("gradient_heatmap", trace, {}).layout.meta["note"]


def test_where_every_signal_is_0_every_layer_has_a_mark():
    figure = figures.draw("gradient_flow", shaped(np.zeros(4), np.zeros(4)), {})
    for axis in ("y", "y2"):
        (zeros,) = (d for d in figure.data if d.mode == "markers" and d.yaxis == axis)
        assert zeros.x.tolist() == [1, 2, 3, 4] and np.isfinite(zeros.y).all() and min(zeros.y) > 0
    assert figure.layout.yaxis.ticktext == figure.layout.yaxis2.ticktext == ("0",)
    assert "× at the bottom: 0." in figure.layout.meta["note"]


def test_marks_of_zeros_alone_lie_at_the_bottom_and_at_their_tick():
    """They lay in the middle, below a 0 of their own."""
    trace = flowing(1.0, 1.0)
    for (_, arm), rows in trace.values.items():
        rows[:] = np.nan if arm == 0 else 0
    trace.diverged = {(0, seed): (1, 1) for seed in trace.experiment.seeds}
    figure = figures.draw("gradient_flow", trace, {})
    (zeros,) = (d for d in figure.data if d.mode == "markers" and d.yaxis == "y")
    low, high = figure.layout.yaxis.range
    assert figure.layout.yaxis.tickvals == (zeros.y[0],)
    assert low < np.log10(zeros.y[0]) < low + (high - low) / 5


def test_the_colors_are_those_of_networks_that_last():
    trace = shaped([0.1, 1], [0.1, 1], diverged={(0, 5): (9, 1)})
    for values in trace.values.values():
        values[9, 1], values[10:, 1] = 1e28, np.nan
    figure = figures.draw("gradient_heatmap", trace, {})
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == pytest.approx((-1, 0), abs=1e-6)
    assert "The colors are chosen for the networks that did not diverge." in figure.layout.meta["note"]
    trace.diverged |= {(0, 3): (9, 1)}
    for values in trace.values.values():
        values[9, 0], values[10:, 0] = 1e28, np.nan
    axis = figures.draw("gradient_heatmap", trace, {}).layout.coloraxis
    assert (axis.cmin, axis.cmax) == pytest.approx((-1, 0), abs=1e-6), "how they began"


@pytest.mark.parametrize("others", [True, False])
def test_the_last_network_of_an_arm_of_which_most_diverged_rules_no_colors(others):
    trace = shaped([0.1, 1], [0.1, 1])
    seeds, arms = (3, 5, 7), [Arm(label="none"), Arm(label="BN")][: 1 + others]
    trace.experiment = trace.experiment.model_copy(update={"seeds": seeds, "arms": tuple(arms)})
    trace.values = {(q, arm): np.repeat(v[:, :1], 3, 1) for (q, _), v in trace.values.items() for arm in (0, 1)}
    trace.diverged = {(0, 3): (9, 1), (0, 5): (9, 1)}
    for (_, arm), values in trace.values.items():
        if arm == 0:
            values[10:, :2], values[5:, 2] = np.nan, 1e-30
    figure = figures.draw("gradient_heatmap", trace, {})
    axis, note = figure.layout.coloraxis, figure.layout.meta["note"]
    assert (axis.cmin, axis.cmax) == pytest.approx((-1, 0) if others else (-30, 0), abs=1e-5)
    assert ("not diverge, without those of arms of which most did: none." in note) == others


@pytest.mark.parametrize("label", ["four", "noisy a rather long label of forty ch"])
def test_a_panel_has_room_above_it_for_every_line_of_its_title(label):
    """A first line of two lay over "step t (updates)" of the panel above."""
    arms = tuple(Arm(label=name) for name in ("one", "two", "three", label))
    trace = flowing(1, 1, 1, 1)
    trace.experiment = trace.experiment.model_copy(update={"arms": arms})
    layout = figures.draw("gradient_heatmap", trace, {}).layout
    inner = layout.height - layout.template.layout.margin.t - layout.template.layout.margin.b
    upper, lower = layout.yaxis.domain, layout.yaxis4.domain
    lines = layout.annotations[3].text.count("<br>") + 1
    assert lines == (1 if label == "four" else 2)
    ticks_and_title = 50  # pixels below a panel, at 12 and 14 pixels' letters
    assert (upper[0] - lower[1]) * inner >= ticks_and_title + 1.3 * 13 * lines + 10
    assert (lower[1] - lower[0]) * inner >= 240, "and the panels are not smaller for it"
