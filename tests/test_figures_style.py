"""Numbers and ticks are written as one would, and words reach the page as plain text."""

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from looked_at import SMALL, forked, recorded, seen, shown, thinned, trained
from plotly.subplots import make_subplots

from bnlab import Arm, figures
from bnlab.figures import axes, style


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.15, 1.9, ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"]),
        (3e-9, 0.5, [*(f"10<sup>−{k}</sup>" for k in (10, 8, 6, 4, 2)), "1"]),
        (30, 9e5, ["10", *(f"10<sup>{k}</sup>" for k in range(2, 7))]),
        (0.002, 3, ["0.001", "0.01", "0.1", "1", "10"]),
    ],
)
def test_ticks_can_be_read(low, high, text):
    assert axes.ticks(low, high)["ticktext"] == text
    assert axes.ticks(2.0, 2.1) is None


def test_an_axis_of_a_few_times_its_least_value_has_three_ticks_or_more():
    """0.24 to 0.8 had the one tick 0.5."""
    for low in np.geomspace(0.1, 1, 50):
        for times in (3.01, 4, 9, 30, 1e4):
            told = axes.ticks(low, low * times)
            assert 3 <= sum(low <= v <= low * times for v in told["tickvals"]) <= 10


def test_no_two_ticks_are_written_alike():
    """1.5 and 2 millionths were."""
    for low, high in ((2e-6, 9e-6), (0.2, 0.7), (3e5, 1.1e6), (1e-30, 1e20)):
        told = axes.ticks(low, high)["ticktext"]
        assert len(set(told)) == len(told)


@pytest.mark.parametrize(
    "name", ["three_losses", "alpha_inference", "alpha_curve", "moving_averages", "why_off", "loss"]
)
def test_logarithmic_axes_have_ticks_of_one_style(inference_run, name):
    """Some had a format of their own, as 1e-7."""
    options = {"moving_averages": {"scale": "log"}, "loss": {"y": "log"}}.get(name, {})
    found = [axis for axis in seen(*inference_run, name, options).select_yaxes() if axis.type == "log"]
    assert found
    for axis in found:
        alike = [[axes.tick_text(v, plain) for v in axis.tickvals or ()] for plain in (True, False)]
        assert list(axis.ticktext or ()) in alike
        assert axis.tickvals or axis.tickformat == ",~g", "where it spans little"


def marked(axis, low, high):
    """How many ticks a logarithmic axis has from low to high, as plotly's reference says of dtick; where it is free to
    choose, it takes round numbers a like distance apart."""
    digits = {"D1": range(1, 10), "D2": (1, 2, 5)}
    if axis.tickvals is None and axis.dtick is None:
        return 3
    places = axis.tickvals or [d * 10.0**k for k in range(-12, 12) for d in digits.get(axis.dtick, (1,))]
    return sum(low <= place <= high for place in places)


@pytest.mark.parametrize("name", ["three_losses", "alpha_inference", "alpha_curve", "loss"])
def test_a_logarithmic_axis_that_spans_little_has_two_ticks_or_more(store, name):
    """Losses from 2.05 to 2.5 had none."""
    trace = recorded(store, data="digits", depth=3, width=16, batch_size="full", steps=30)
    figure = shown(trace, name, **({"y": "log"} if name == "loss" else {}))
    low, high = (end([end(line.y) for line in figure.data]) for end in (np.min, np.max))
    assert high < 2 * low and not any(low <= place <= high for place in (1, 2, 5, 10)), "none of the plain ones"
    for axis in figure.select_yaxes():
        assert axis.type == "log" and axis.tickformat == ",~g"
        assert marked(axis, low, high) >= 2


def test_a_wide_logarithmic_axis_of_any_figure_has_powers_of_ten():
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1e-9, 1.0])).update_yaxes(**axes.logarithmic(9))
    figure.add_surface(z=[[1.0]])
    assert style.finished(figure).layout.yaxis.ticktext[:2] == ("10<sup>−10</sup>", "10<sup>−8</sup>")


OF_LAYERS = {"gradient_flow", "gradient_heatmap", "histograms", "saturation", "predicted", "in_practice"}
OF_LAYERS |= {"two_examples", "covariate_shift", "jacobians", "spectra", "conditions", "ranks", "undone"}


@pytest.mark.parametrize("name", figures.FIGURES)
def test_axes_of_layers_name_layers_that_exist(why_run, name):
    """They had 1.5, 2.5 and 3.5, of 4 layers."""
    figure = seen(*why_run, name)
    across, up = (
        [axis for axis in axes if (axis.title.text or "").startswith("layer")]
        for axes in (figure.select_xaxes(), figure.select_yaxes())
    )
    assert (across or up) or name not in OF_LAYERS
    for axis in across:
        assert (axis.dtick, axis.range) == (1, (0.5, 4.5))
    for axis in up:
        assert axis.dtick == 1 or axis.tickvals == (1, 2, 3, 4)


def test_panels_of_layers_end_at_the_same_one_and_many_layers_have_few_ticks():
    """The Jacobian of the first layer is not looked at, that from it to the top is."""
    for depth, ticks in ((3, 1), (30, None)):
        figure = make_subplots(1, 2).add_scatter(x=[2, depth - 1], y=[1, 2], row=1, col=1)
        figure.add_scatter(x=[1, depth], y=[1, np.nan], row=1, col=2).update_xaxes(title="layer l")
        axes = style.finished(figure).layout
        assert axes.xaxis.range == axes.xaxis2.range == (0.5, depth + 0.5)
        assert axes.xaxis.dtick == axes.xaxis2.dtick == ticks
    assert style.finished(go.Figure().update_xaxes(title="layer l")).layout.xaxis.range is None, "nothing is drawn"


@pytest.mark.parametrize(
    ("value", "text"),
    [(293.4, "293"), (2.9e2, "290"), (1437, "1,440"), (123456, "123,000"), (0.0399, "0.0399"), (8.1e-6, "8.1×10⁻⁶"),
     (0, "0"), (-3.2e-8, "-3.2×10⁻⁸"), (2.5e9, "2.5×10⁹"), (np.nan, "not finite"), (np.inf, "not finite")],
)  # fmt: skip
def test_numbers_are_written_as_one_would(value, text):
    assert style.amount(value) == text


def test_the_page_gets_the_words_of_an_empty_chart_as_plain_text():
    assert style.finished(go.Figure(), note="R&amp;D &lt;b&gt;.").layout.meta["note"] == "R&D <b>."
    figure = style.said("R&amp;D &lt;b&gt;:<br>nothing.")
    assert figure.layout.meta["said"] == "R&D <b>: nothing." and figure.layout.meta["note"] == ""
    assert figure.layout.annotations[0].text.startswith("R&amp;D")


@pytest.fixture(scope="module")
def strange_run(tmp_path_factory):
    """A run of one arm, in whose label are the beginning of a sign's name in HTML and a place for a value in plotly."""
    arm = Arm(label="BN&notch %{x}", changes={"norm": "batch"})
    return trained(tmp_path_factory.mktemp("store"), SMALL, (arm,))


@pytest.mark.parametrize("name", figures.FIGURES)
def test_an_arm_is_called_in_every_note_and_below_the_mouse_as_the_visitor_called_it(strange_run, name):
    """Two notes said BN¬ch; below the mouse plotly put a step in place of %{x}."""
    figure = seen(*strange_run, name)
    meta = figure.layout.meta
    assert "¬" not in meta["note"] + meta.get("said", "") and "&#37;" not in meta["note"] + meta.get("said", "")
    assert not [line for line in figure.data if "notch %{x}" in (line.hovertemplate or "")]


def test_thousands_are_parted_by_commas_on_every_axis_and_in_every_note(store):
    """But not in what a visitor types, nor below a thousand."""
    assert [axes.tick_text(v, plain=True) for v in (500, 2e3, 1e4)] == ["500", "2,000", "10,000"]
    assert style.LOOK.layout.xaxis.separatethousands and style.LOOK.layout.yaxis.separatethousands
    trace = recorded(store, ({}, {"norm": "batch"}), steps=2100, score_every=700, budget_mb=2000)
    child = forked(store, trace, 1400, 1, learning_rate=0.2)
    wide = recorded(store, data="digits", batch_size=1024, steps=5)
    drawn = [shown(child, "recomputed"), shown(wide, "two_examples"), shown(wide, "why_off", layer="1")]
    for name in ("loss", "gradient_flow", "moving_averages", "units_overview", "distributions", "histograms", "dials"):
        drawn.append(shown(trace, name))
    drawn.append(shown(thinned(store, trace, 1024), "moving_averages"))
    for figure in drawn:
        said = json.dumps(figure.to_plotly_json(), default=str, ensure_ascii=False)
        words = re.findall(r'"(?:note|text|said|hovertemplate|name)": "([^"]*)"', said)
        assert not [word for word in words if re.search(r"(?<![\d.])\d{4,}", word)]
    assert shown(trace, "loss").layout.xaxis.unifiedhovertitle.text == "step %{x:,d}"  # plotly writes 14464


def test_a_line_of_the_legend_is_as_long_as_two_long_dashes_and_their_gap():
    assert style.LOOK.layout.legend.itemwidth >= 3 * 15  # pixels; plotly's own is 30: one dash, then nothing


def test_the_name_of_a_line_is_at_the_end_where_no_curve_is():
    """The population's was written across the run's own."""
    falling, back, nothing = [1, 0.9, 0.8, 0.7, 0.6], [1, 1.4, 1.3, 1.03, 1.03], [1, 1, 1, np.nan, np.nan]
    free_end = lambda *curves: style.free_end(np.array(curves, float), 1.0)  # noqa: E731
    assert free_end(falling) == free_end(falling, nothing) == "end"
    assert free_end(falling, back) == "start" and free_end(falling, back[::-1]) == "end"
    assert free_end([1.0]) == "end", "one layer"


def test_the_decades_of_values_are_counted_also_where_their_quotient_is_beyond_float32():
    assert axes.decades(np.array([1e-30, 1e30], np.float32)) == pytest.approx(60)


def test_a_logarithmic_axis_of_a_single_value_has_ticks_that_do_not_touch():
    """Of one layer the ticks of gradient flow lay on each other, 0.1, 0.09, 0.08."""
    figure = go.Figure(go.Scatter(x=[1], y=[0.07]), {"yaxis": {"type": "log"}})
    axes.ticked(figure)
    assert figure.layout.yaxis.dtick == "D2"


@pytest.mark.parametrize(
    ("values", "fold", "digits"),
    [
        ((1.0, 1.2), 1.1, 2),
        ((1.049, 1.151), 1.1, 3),  # as 1 and 1.2 they would be 20 % apart
        ((3.0, 3.3), 1.1, 2),
        ((1.0, 1.50001), 1.5, 6),
        ((2.0, 2.0, np.nan, 0.0, np.inf), 1.1, 2),
        ((), 1.1, 2),
    ],
)
def test_numbers_have_as_many_digits_as_show_which_of_them_differ(values, fold, digits):
    assert style.enough_digits(values, fold) == digits
