"""The loss surface is the loss at moved weights; the path of training lies in its plane."""

import numpy as np
import pytest
import torch
from looked_at import seen as drawn
from looked_at import trained
from twins import Twin, group, look, twins

from bnlab import Arm, Settings, lineage
from bnlab.probes import Copies, at_once, landscape


def test_the_path_leaves_out_what_diverged(why_trace):
    step = why_trace.snapshots()[1]
    copies = Copies(why_trace.experiment)
    (seen,) = lineage.seen(why_trace)
    (made,) = copies.groups

    def vector(t):
        found = seen.vector(t).copy()
        made.stack.restore(t, found)
        if t > step:
            made.stack.layers[1].weight[0] = torch.nan
        return made.stack.snapshot()

    with torch.no_grad():
        made.stack.restore(step, why_trace.snapshot(step)[0])
        found = at_once(landscape.look_along_path(made, seen._replace(vector=vector), points=5))
    assert found["step"].tolist() == [why_trace.snapshots()] * len(found["step"])
    assert np.isfinite(found["loss"]).all() and np.isfinite(found["path"][0, :2]).all()
    assert np.isnan(found["path"][0, 2:]).all() and np.isfinite(found["path"][1:]).all()


def test_the_plane_reaches_a_quarter_of_the_path_beyond_it(why_trace):
    step = why_trace.snapshots()[-1]
    (made,), (seen,) = Copies(why_trace.experiment).groups, lineage.seen(why_trace)
    with torch.no_grad():
        made.stack.restore(step, why_trace.snapshot(step)[0])
        found = at_once(landscape.look_along_path(made, seen, points=5))
    for k, axis in enumerate(("across", "up")):
        low, high = found["path"][:, :, k].min(1), found["path"][:, :, k].max(1)
        ends = np.stack([low - (high - low) / 4, high + (high - low) / 4], 1)
        np.testing.assert_allclose(found[axis][:, [0, -1]], ends, rtol=1e-5)


def test_one_snapshot_is_no_path(why_trace):
    (seen,) = lineage.seen(why_trace)
    with pytest.raises(ValueError, match="there is one snapshot so far; a path needs two"):
        at_once(
            landscape.look_along_path(Copies(why_trace.experiment).groups[0], seen._replace(snapshots=[0]), points=5)
        )


@pytest.mark.parametrize("depth", [1, 2])
def test_the_surface_is_the_loss_at_moved_weights(depth):
    made = group(width=5, depth=depth)
    every = twins(made)
    start = made.stack.parameters.clone()
    found = look(landscape.look, made, points=5)
    assert torch.equal(made.stack.parameters, start)
    with torch.no_grad():
        first, second = (landscape.unit_normalized(made, which) for which in range(2))
        for i, j in ((2, 2), (0, 4), (3, 1)):
            made.stack.parameters.copy_(start + found["at"][0, j] * first + found["at"][0, i] * second)
            for slot, (twin, x, y) in enumerate(every):
                there = Twin(made.stack, slot)
                assert found["loss"][slot, i, j] == pytest.approx(float(there.loss(x, y).detach()), rel=1e-9)
                if (i, j) == (2, 2):
                    assert found["loss"][slot, i, j] == pytest.approx(float(twin.loss(x, y).detach()), rel=1e-9)
    for name in ("weight_in", "weight", "readout"):
        own = made.stack.views(start)[name].norm(dim=-2)
        torch.testing.assert_close(made.stack.views(first)[name].norm(dim=-2), own)
    assert float(made.stack.views(first)["gamma"].abs().max()) == 0


def test_the_path_lies_in_its_plane(why_trace):
    step = why_trace.snapshots()[-1]
    found = Copies(why_trace.experiment).look(
        "path", {"points": 5}, step, why_trace.snapshot(step), lineage.seen(why_trace)
    )[0]
    assert (found["share"].sum(1) <= 1 + 1e-6).all() and (found["share"][:, 0] >= found["share"][:, 1] - 1e-9).all()
    np.testing.assert_allclose(found["path"][:, -1], 0, atol=1e-6)  # it ends where the plane is centered
    assert (found["share"].sum(1) > 0.5).all()


def test_a_path_of_many_snapshots_is_that_of_some_spread_evenly(tmp_path):
    """The plane is numpy's of the same snapshots; pieces come between the snapshots, so that a look can end there."""
    settings = Settings(depth=2, width=4, steps=100, data="wine", batch_size=16, score_every=1)
    store, run_id = trained(tmp_path, settings, (Arm(label="BN", changes={"norm": "batch"}),))
    trace = store.trace(run_id)
    assert len(trace.snapshots()) == 101
    copies, (seen,) = Copies(trace.experiment), lineage.seen(trace)
    look = copies.looking("path", {"points": 5}, 100, trace.snapshot(100), [seen])
    assert sum(1 for _ in look) > 32
    note = drawn(store, run_id, "surface", {"plane": "path", "beside": "0"}).layout.meta["note"]
    found = trace.look("path", 0, 100, points=17)
    steps = found["step"][0]
    assert "(white: 32 of the snapshots taken with scores)" in note
    assert len(steps) == 32 and (steps[0], steps[-1]) == (0, 100) and np.ptp(np.diff(steps)) < 3
    (made,), points = copies.groups, []
    for t in steps.tolist():
        made.stack.restore(t, seen.vector(t))
        points.append(made.stack.parameters.double().numpy().copy())
    points = np.array(points) - np.mean(points, 0)
    variances = np.linalg.svd(points, compute_uv=False) ** 2
    np.testing.assert_allclose(found["share"][0], variances[:2] / variances.sum(), rtol=1e-4)
    there = np.linalg.norm(found["path"][0] - found["path"][0].mean(0)) ** 2
    assert there == pytest.approx(variances[:2].sum(), rel=1e-4)
