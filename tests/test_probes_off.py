"""The loss without a part of the gap is torch's with averages that a slow loop has made, through forks too."""

import numpy as np
import pytest
import torch
from looked_at import forked, recorded
from twins import Twin

from bnlab import figures, lineage
from bnlab.looking import look
from bnlab.moving import ALPHAS
from bnlab.probes import Copies, off
from bnlab.probes.off import WITHOUT


@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize(
    ("was", "then", "at"),
    [
        ({"alpha": 0.97}, {"alpha": 0.6}, 22),
        ({"alpha": 0.6}, {"alpha": 0.97}, 40),
        ({"statistics": "moving", "alpha": 0.9}, {"statistics": "batch"}, 24),
    ],
)
def test_the_causes_are_those_of_the_averages_as_they_were_made(store, was, then, at, placement):
    """Today's alpha was taken for all time: of a start that weighed a fifth next to nothing was found."""
    parent = recorded(store, ({"norm": "batch", "placement": placement} | was,), score_every=1)
    trace = forked(store, parent, 20, **then)
    look(store, trace.run.id, "off", {}, at, trace.snapshot(at))
    told = dict(zip(WITHOUT, store.trace(trace.run.id).look("off", 1, at)["loss"][0], strict=True))

    old, new = (t.experiment.arm_settings[arm] for t, arm in ((parent, 0), (trace, 1)))
    weighs = [1.0 if s.statistics == "moving" else s.alpha for s in [old] * 20 + [new] * (at - 20)]
    parts = {name: [] for name in WITHOUT}
    for name, start in (("mean", 0.0), ("var", 1.0)):
        layers = {without: [] for without in WITHOUT}
        for layer in (1, 2):
            of = 1 if name == "mean" else 2
            p = lineage.population(trace, 1, layer)[of][:, 0].astype(float)  # at every step
            b = lineage.rows(trace, f"batch_{name}", 1, layer=layer)[1][:, 0].astype(float)
            m, line, left = start, 0.0, 1.0
            for s, alpha in enumerate(weighs):
                m, line, left = alpha * m + (1 - alpha) * b[s], alpha * line + (1 - alpha) * p[s], alpha * left
            gone = {"warm_up": left * (start - p[at]), "lag": line - (1 - left) * p[at], "all": m - p[at]}
            gone |= {"nothing": 0 * m, "mini_batches": gone["all"] - gone["warm_up"] - gone["lag"]}
            for without, part in gone.items():
                layers[without].append(m - part)
        for without, values in layers.items():
            parts[without].append(values)
    stack, (place,) = trace.slots(1, "steps")
    group = Copies(trace.experiment).groups[stack]
    with torch.no_grad():
        group.stack.restore(at, trace.snapshot(at)[stack])
        twin, (x, y) = Twin(group.stack, place).eval(), group.splits["test"]
        for without, (mean, var) in parts.items():
            for l, norm in enumerate(twin.norm):
                norm.running_mean.copy_(torch.from_numpy(mean[l]))
                norm.running_var.copy_(torch.from_numpy(np.maximum(var[l], 0)))
            assert told[without] == pytest.approx(float(twin.loss(x, y)), rel=1e-3), without
    assert max(abs(loss - told["nothing"]) for loss in told.values()) > 0.01, "the test's own networks"


def test_the_steps_over_which_the_population_was_measured_are_the_last(store):
    """A snapshot every 150 steps: of 300 steps that are trained again the last 200 are measured."""
    arms = {"norm": "batch"}, {}, {"norm": "batch", "statistics": "moving"}
    trace = recorded(store, arms, steps=300, score_every=300)
    look(store, trace.run.id, "off", {}, 300, trace.snapshot(300))
    told = [store.trace(trace.run.id).look("off", arm, 300)["replayed"][0] for arm in range(3)]
    assert told[0] == 200 and np.isnan(told[1:]).all()
    note = figures.draw("why_off", store.trace(trace.run.id), {}).layout.meta["note"]
    assert "Over the last 200 steps, trained again for this to the last bit, the population was measured; older" in note


def test_of_a_fork_whose_past_was_deleted_no_cause_is_told(store):
    """What the population was before is not known; the whole gap is, and the causes once the past is forgotten."""
    parent = recorded(store, alpha=0.97)
    child = forked(store, parent, 20, alpha=0.6)
    look(store, child.run.id, "off", {}, 40, child.snapshot(40))
    whole = store.trace(child.run.id).look("off", 1, 40)["loss"]
    store.db.execute("delete from looks")
    store.delete(parent.run.id)
    for at in (25, 40):
        look(store, child.run.id, "off", {}, at, child.snapshot(at))
    trace = store.trace(child.run.id)
    np.testing.assert_allclose(trace.look("off", 1, 40)["loss"], whole, rtol=1e-3)  # of the past 0.6^20 is left
    for arm in (0, 1):
        told = dict(zip(WITHOUT, trace.look("off", arm, 25)["loss"][0], strict=True))
        assert np.isnan([told[part] for part in ("warm_up", "lag", "mini_batches")]).all()
        for part, kind in (("nothing", "moving"), ("all", "population")):
            steps, losses, _ = trace.scores(arm, "test", kind)
            assert told[part] == pytest.approx(losses[list(steps).index(25), 0], rel=1e-5)


def test_after_a_single_step_every_part_is_told(store):
    """The average holds the start and one mini-batch; the line from step 0 to 1 is one update long."""
    trace = recorded(store, steps=1, score_every=1)
    look(store, trace.run.id, "off", {}, 1, trace.snapshot(1))
    trace = store.trace(trace.run.id)
    told = trace.look("off", 0, 1)["parts"][0]  # [2, L, alphas, 5]
    _, *population = trace.population(0)
    unit = np.sqrt(population[1][1, 0]), population[1][1, 0]
    for i, (name, start) in enumerate((("mean", 0.0), ("var", 1.0))):
        b, (old, new) = trace.read(f"batch_{name}", 0).mean[0, 0].astype(float), population[i][:, 0].astype(float)
        for j, alpha in enumerate(ALPHAS):
            came = 1 - alpha
            gone = alpha * (start - new), came * (old - new), came * (b - old)
            parts = (alpha * start + came * b - new, *gone, b - new if came else start - new)
            sizes = [np.sqrt(np.mean((part / unit[i]) ** 2, 1)) for part in parts]  # of each layer
            np.testing.assert_allclose(told[i, :, j], np.array(sizes).T, rtol=1e-4, atol=1e-6)


def test_steps_are_trained_again_from_800_before_and_from_no_further(store):
    for steps, far in ((800, False), (801, True)):
        trace = recorded(store, steps=steps, score_every=steps)
        look(store, trace.run.id, "off", {}, steps, trace.snapshot(steps))
        found = store.trace(trace.run.id).look("off", 0, steps)
        assert far or found["replayed"][0] == 200
        drawn = figures.draw("why_off", store.trace(trace.run.id), {})
        said = " ".join(note.text for note in drawn.layout.annotations)
        assert ("no snapshot of the weights is left here of the 800 steps before 801" in said) == far, said


def test_before_the_first_update_the_whole_gap_is_the_start(store):
    trace = recorded(store, steps=1, score_every=1)
    look(store, trace.run.id, "off", {}, 0, trace.snapshot(0))
    found = store.trace(trace.run.id).look("off", 0, 0)
    told = dict(zip(WITHOUT, found["loss"][0], strict=True))
    for kind, parts in (("moving", ("nothing", "lag", "mini_batches")), ("population", ("warm_up", "all"))):
        loss = trace.scores(0, "test", kind)[1][0, 0]
        assert [told[part] for part in parts] == pytest.approx([loss] * len(parts), rel=1e-5)
    assert np.isnan(found["parts"]).all() and found["replayed"][0] == 0


def test_of_more_networks_the_population_is_measured_at_fewer_of_the_last_steps_and_at_the_step_itself(
    store, monkeypatch
):
    at, measured = [], off.measured
    monkeypatch.setattr(off, "AT_ONCE", 2)
    monkeypatch.setattr(off, "REPLAYED", 8)
    monkeypatch.setattr(off, "measured", lambda group: at.append(group.stack.t) or measured(group))
    trace = recorded(store, [{"norm": "batch", "learning_rate": rate} for rate in (0.1, 0.2, 0.3)], steps=11)
    for snapshot in trace.snapshots()[1:-1]:
        store.db.execute("delete from snapshots where step = ?", (snapshot,))
    look(store, trace.run.id, "off", {}, 11, trace.snapshot(11))
    assert at == [3, 5, 7, 9, 11]
