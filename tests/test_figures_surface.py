"""The loss surface: its frame, its colors, and the path that lies on it."""

import numpy as np
import pytest
from looked_at import seen

from bnlab import figures
from bnlab.figures import surface


def test_both_solid_surfaces_stand_in_one_frame_with_their_paths(why_run):
    store, run_id = why_run
    drawn = seen(store, run_id, "surface", {"plane": "path", "look": "surface"})
    scenes = list(drawn.select_scenes())
    assert [s.aspectmode for s in scenes] == ["cube"] * 2 and scenes[0].zaxis.range == scenes[1].zaxis.range
    assert scenes[0].domain.x[1] < scenes[1].domain.x[0] and scenes[0].domain.y == scenes[1].domain.y
    low, high = scenes[0].zaxis.range
    for t in drawn.data:
        assert low <= np.nanmin(np.asarray(t.z, float)) <= np.nanmax(np.asarray(t.z, float)) <= high
    at = store.trace(run_id).snapshots()[-1]
    found = store.trace(run_id).look("path", 1, at, points=surface.POINTS)
    line = next(t for t in drawn.data if t.type == "scatter3d" and np.allclose(t.x, found["path"][0][:, 0]))
    np.testing.assert_allclose(line.y, found["path"][0][:, 1])
    assert line.customdata.tolist() == store.trace(run_id).snapshots() and "step %{customdata:,d}" in line.hovertemplate
    sheet = next(t for t in drawn.data if t.type == "surface" and "<extra>BN" in t.hovertemplate)
    colors = drawn.layout.coloraxis
    i, j = (np.searchsorted(axis, at).clip(1, len(axis) - 1) for axis, at in ((sheet.x, line.x), (sheet.y, line.y)))
    corners = np.stack([sheet.z[j - up, i - left] for up in (0, 1) for left in (0, 1)])
    height = line.z - 0.01 * (colors.cmax - colors.cmin)  # it lies a little above the surface
    assert (corners.min(0) - 1e-9 <= height).all() and (height <= corners.max(0) + 1e-9).all()
    for ticks in (scenes[0].zaxis, colors.colorbar):
        np.testing.assert_allclose([float(t) for t in ticks.ticktext], 10 ** np.array(ticks.tickvals), rtol=1e-7)
    share = found["share"][0]
    assert f"BN {share[0]:.0%} + {share[1]:.0%}" in drawn.layout.meta["note"]
    assert "the first seed, 0" in drawn.layout.meta["note"]


def test_the_end_of_the_colors_is_written_as_one_would(why_run, monkeypatch):
    seen(*why_run, "surface")
    trace = why_run[0].trace(why_run[1])
    whole = trace.look

    def great(*args, **options):
        found = whole(*args, **options)
        return found | {"loss": np.full_like(found["loss"], 4.96e6)}

    monkeypatch.setattr(trace, "look", great)
    note = figures.draw("surface", trace, {}).layout.meta["note"]
    assert "Colors end at 4.96×10⁶ nats, which 98% of the points stay below." in note


@pytest.mark.parametrize("look", ["contour", "surface"])
def test_one_arm_is_shown_once(why_run, look):
    drawn = seen(*why_run, "surface", {"plane": "path", "look": look, "arm": "1", "beside": "1"})
    assert [t.type for t in drawn.data].count(look) == 1 and len(drawn.layout.annotations) == 1
    assert drawn.layout.meta["note"].count("BN ") == 1


def test_the_path_of_contours_says_its_steps_and_random_directions_the_step_they_are_of(why_run):
    path, mark = (seen(*why_run, "surface", {"plane": plane}).data[3] for plane in ("path", "landscape"))
    found = why_run[0].trace(why_run[1]).look("path", 1, 40, points=surface.POINTS)["path"][0]
    np.testing.assert_allclose(np.stack([path.x, path.y], 1), found, rtol=1e-6)
    assert (list(path.customdata), list(mark.customdata)) == ([0, 20, 40], [40])
    assert (list(mark.x), list(mark.y)) == ([0], [0])
    assert path.hovertemplate == mark.hovertemplate == "step %{customdata:,d}<extra>BN</extra>"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.03, 4, ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (1.9, 2.31, ["1.9", "2", "2.1", "2.2", "2.3"]),
        (2.302581, 2.302592, ["2.302582", "2.302584", "2.302586", "2.302588", "2.30259", "2.302592"]),
        (1.5, 1.5, []),
    ],
)
def test_colors_are_told_as_round_losses(low, high, text):
    told = surface.round_losses(low, high)
    values = 10 ** np.array(told["tickvals"])
    assert [t for v, t in zip(values, told["ticktext"], strict=True) if low - 1e-9 <= v <= high + 1e-9] == text


def test_heights_between_the_points_of_a_grid_are_bilinear():
    x, y = np.linspace(-1, 2, 7), np.linspace(0, 1, 5)
    z = 1 + 2 * x[None] - y[:, None] + 3 * x[None] * y[:, None]
    points = np.array([[-1, 0], [2, 1], [0.3, 0.77], [1.9, 0.01]])
    expected = 1 + 2 * points[:, 0] - points[:, 1] + 3 * points[:, 0] * points[:, 1]
    np.testing.assert_allclose(surface.between(x, y, z, points), expected)


@pytest.mark.parametrize("plane", ["landscape", "path"])
def test_at_the_foot_of_the_losses_axis_there_stand_the_ticks_of_the_floor_only(why_run, plane):
    drawn = seen(*why_run, "surface", {"plane": plane, "look": "surface"})
    axis, colors = drawn.layout.scene.zaxis, drawn.layout.coloraxis
    share = (np.array(axis.tickvals) - colors.cmin) / (colors.cmax - colors.cmin)
    assert len(share) and share.min() > 0.1
