"""What a chart shows is told in numbers: those of the points that it draws."""

import numpy as np
import plotly.graph_objects as go
import pytest
from looked_at import shown, trained
from plotly.subplots import make_subplots

from bnlab import Arm, Settings
from bnlab.figures import FIGURES
from bnlab.figures.style import amount
from bnlab.figures.told import told


def test_a_curve_is_told_by_its_ends_its_least_and_its_greatest_and_a_short_one_point_by_point():
    figure = go.Figure()
    figure.add_scatter(x=np.arange(1000, 1010), y=[3, 1, np.nan, 7, np.inf, 4, 4, 4, 2.5, None], name="no norm: test")
    figure.add_scatter(x=[1, 2, 3], y=[0.5, np.nan, 1e-7], name="a &lt;b&gt; &#37;{x}", xaxis="x2", yaxis="y2")
    figure.add_bar(x=["no<br>norm", "BN"], y=[1, 2], name="bars", meta="median")
    figure.add_bar(x=["BN"], y=[3])
    figure.add_scatter(x=["0.9", "0.99"], y=[1, 2], name="not to scale")
    figure.add_scatter(x=[5, 6, np.nan], y=[0.2, 0.8, 2], name="marks in rows", yaxis="y3")
    figure.add_scatter(x=[1, 2, 9], y=[0.1] * 3, name="zeros", mode="markers", meta={"instead": "0"})
    figure.add_scatter(x=[1e11, 1e12], y=[1, 2], name="large")
    figure.add_scatter(x=[1, 2, 1], y=[3, 4, 3], name="outline", fill="toself")
    figure.add_scatter(x=[1, 2], y=[3, 4], name="band", hoverinfo="skip")
    figure.add_scatter(x=[1, 2], y=[3, 4])
    figure.add_scatter(x=[1, 2], y=[np.nan, np.nan], name="diverged")
    figure.update_layout(xaxis_title="step t", yaxis_title="loss", yaxis2={"title": "σ²<sub>pop</sub>"}, xaxis2={})
    figure.update_layout(yaxis3={"tickvals": [0, 1, 2], "ticktext": ["as it<br>should be", "wrong", "worse"]})
    assert told(figure) == [
        "no norm: test. loss over step t: from 3 at 1,000 to 2.5 at 1,008; least 1 at 1,001, greatest 7 at 1,003.",
        "a <b> %{x}. σ²_{pop} over step t: 0.5 at 1; 1×10⁻⁷ at 3.",
        "bars, median. loss over step t: no norm: 1; BN: 2.",
        "loss over step t: BN: 3.",
        "not to scale. loss over step t: 1 at 0.9; 2 at 0.99.",
        "marks in rows. step t over loss: as it should be: 5; wrong: 6.",
        "zeros. loss over step t: 0 at 1, 2, 9.",
        "large. loss over step t: 1 at 1×10¹¹; 2 at 1×10¹².",
    ]


def test_what_stands_at_a_row_of_panels_is_told_of_all_of_it_and_a_logarithm_as_the_number():
    figure = make_subplots(2, 2, shared_yaxes=True)
    for i in range(4):
        figure.add_scatter(x=[1], y=[2], name=f"{i}", row=i // 2 + 1, col=i % 2 + 1)
    figure.update_yaxes(title="J<sub>l</sub>", row=1, col=1).update_yaxes(
        title="J<sub>l+1</sub> 10<sup>−3</sup>", row=2, col=1
    )
    assert [one.split(":")[0] for one in told(figure)] == [
        "0. J_l",
        "1. J_l",
        "2. J_{l+1} 10^{−3}",
        "3. J_{l+1} 10^{−3}",
    ]
    figure = go.Figure(go.Heatmap(x=[0, 1], y=[1], z=[[-3, 2]], name="BN", coloraxis="coloraxis"))
    figure.update_layout(coloraxis={"colorbar": {"title": {"text": "log₁₀ ‖dE/da‖"}}})
    assert told(figure)[0].startswith("BN. ‖dE/da‖ at (, ): 0.001 at (0, 1); 100 at (1, 1); least ")


def test_the_mistakes_of_several_arms_are_told_by_their_names(tmp_path):
    """Dots that stand beside each other in a row were told by its number, and their losses as places."""
    arms = tuple(Arm(label=f"BN {p}", changes={"norm": "batch", "placement": p}) for p in ("before", "after"))
    settings = Settings(depth=2, width=6, steps=12, data="wine", batch_size=16, score_every=4)
    store, run_id = trained(tmp_path, settings, arms)
    figure = shown(store.trace(run_id), "mistakes")
    labels = [label.replace("<br>", " ") for label in figure.layout.yaxis.ticktext]
    told_of = dict(zip(("BN before", "BN after"), figure.layout.meta["told"], strict=True))
    for dots in (one for one in figure.data if one.name in told_of):
        at = np.rint(np.array(dots.y)).astype(int)
        assert len(at) > 5 and not np.array_equal(at, dots.y), "side by side"
        pairs = [f"{labels[i]}: {amount(x)}" for i, x in zip(at, dots.x, strict=True) if np.isfinite(x)]
        assert told_of[dots.name].endswith(f": {'; '.join(pairs)}."), told_of


def test_shares_are_told_in_percent_as_on_their_axis():
    figure = go.Figure()
    figure.add_scatter(x=[0, 1, 2], y=[0.133, 1, 0.0002], name="BN", yaxis="y2")
    figure.update_layout(xaxis_title="step t", yaxis2={"title": "accuracy", "tickformat": ".0%"})
    assert told(figure) == ["BN. accuracy over step t: 13.3% at 0; 100.0% at 1; 0.020% at 2."]


def test_a_map_of_colors_is_told_by_its_corners_its_least_and_its_greatest_before_a_logarithm():
    figure = go.Figure()
    z = np.array([[-2.0, np.nan, 1.0], [0.5, 3.0, np.nan]])
    figure.add_heatmap(x=[0, 1000, 2000], y=[1, 2], z=z, name="BN", coloraxis="coloraxis")
    figure.add_contour(x=[-1, 0, 1], y=[0.25, 2], z=z, customdata=10**z, name="LN", coloraxis="coloraxis")
    figure.add_heatmap(x=[0, 1, 2], y=[1, 2], z=np.full((2, 3), np.nan), name="diverged", coloraxis="coloraxis")
    figure.add_heatmap(x=[0, 1, 2], y=[1, 2], z=z)
    figure.update_layout(xaxis_title="step t", yaxis_title="layer l")
    figure.update_layout(coloraxis={"colorbar": {"title": {"text": "log<sub>10</sub> norm"}}})
    assert told(figure) == [
        "BN. log_{10} norm at (step t, layer l): -2 at (0, 1); 1 at (2,000, 1); 0.5 at (0, 2); "
        "least -2 at (0, 1), greatest 3 at (1,000, 2); 33% of it is blank.",
        "LN. log_{10} norm at (step t, layer l): 0.01 at (-1, 0.25); 10 at (1, 0.25); 3.16 at (-1, 2); "
        "least 0.01 at (-1, 0.25), greatest 1,000 at (0, 2); 33% of it is blank.",
    ]


def test_a_surface_is_told_as_the_map_it_is():
    figure = go.Figure()
    figure.add_surface(x=[0, 1], y=[0, 1], z=[[1, 2], [3, 4]], name="BN", coloraxis="coloraxis")
    figure.add_scatter3d(x=[0], y=[0], z=[1], name="path")
    figure.update_layout(scene={"xaxis_title": "first", "yaxis_title": "second"})
    figure.update_layout(coloraxis={"colorbar": {"title": {"text": "E"}}})
    assert told(figure) == [
        "BN. E at (first, second): 1 at (0, 0); 2 at (1, 0); 3 at (0, 1); 4 at (1, 1); "
        "least 1 at (0, 0), greatest 4 at (1, 1)."
    ]


def test_a_histogram_is_told_by_its_width_and_its_highest_bar_and_dots_by_the_least_and_the_greatest():
    figure = go.Figure()
    outline = {"fill": "toself", "customdata": [0, 0.25, 0.5, 0.25, 0]}
    figure.add_scatter(x=[-2, -1, 0.3, 2, 3], y=[1, 1.4, 1.8, 1.4, 1], name="layer 1", **outline)
    figure.add_scatter(x=[0, 1, 2, 3, 7, 6, 5, 4], y=[4, 3, 9, 1, 2, 5, 6, 7], name="units", mode="markers")
    figure.update_layout(xaxis_title="a", yaxis_title="mean")
    assert told(figure) == [
        "layer 1. a: the middle 99% from -2 to 3; highest bar 50.0% near 0.3.",
        "units. mean over a: least 1 at 3, greatest 9 at 2.",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = Settings(depth=3, width=6, steps=12, data="wine", batch_size=16, score_every=4)
    arms = (Arm(label="<b>plain</b>"), Arm(label="BN", changes={"norm": "batch"}))
    return trained(tmp_path_factory.mktemp("store"), settings, arms)


@pytest.mark.parametrize("name", list(FIGURES))
def test_every_chart_tells_its_curves_by_the_arms_labels(run, name):
    figure = shown(run[0].trace(run[1]), name)
    sentences = figure.layout.meta.get("told", [])
    assert sentences or "said" in figure.layout.meta
    assert not [sentence for sentence in sentences if "nan" in sentence or "&" in sentence or "<br>" in sentence]
    if name == "loss":
        line = next(curve for curve in figure.data if curve.name)
        begin = "<b>plain</b>: mini-batch, {}. cross-entropy E (nats) over step t (updates): from "
        assert [sentences[i].startswith(begin.format(what)) for i, what in enumerate(("every step", "smoothed"))]
        assert f"from {line.y[0]:.3g} at 0 to {line.y[-1]:.3g} at 11; least {min(line.y):.3g}" in sentences[1]
