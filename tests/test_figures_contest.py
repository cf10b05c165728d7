"""The figures of the contest draw the networks, layers and directions they say they draw."""

import numpy as np
import pytest

from bnlab import Arm, Experiment, Settings, figures
from bnlab.store import RunStore
from bnlab.work import execute, look

SMALL = Settings(depth=4, width=8, steps=20, data="wine", batch_size=16, score_every=10)
BN = Arm(label="BN", changes={"norm": "batch"})


def trained(directory, *arms, **settings):
    store = RunStore(directory)
    run = store.create(Experiment(settings=SMALL.model_copy(update=settings), arms=arms))
    execute(store, run.id, lambda: None)
    return store, run.id


def seen(store, run_id, name, **options):
    for probe, step, of in figures.needs(name, store.trace(run_id), options):
        look(store, run_id, probe, of, step, store.trace(run_id).snapshot(step))
    return figures.draw(name, store.trace(run_id), options)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_loss_along_the_update_is_another_choice(tmp_path, optimizer):
    store, run_id = trained(tmp_path, BN, optimizer=optimizer)
    along, update = (seen(store, run_id, "smoothness", direction=d) for d in ("gradient_line", "update_line"))
    told = [np.array(f.data[-1].y, float) for f in (along, update)]
    assert np.allclose(*told) == (optimizer == "sgd")
    assert "along the update" in update.layout.yaxis.title.text
    assert "the optimizer's own coming update" in update.layout.meta["note"]


def test_an_arm_that_diverged_does_not_stretch_the_axes_of_the_others(tmp_path):
    lost = Arm(label="lost", changes={"learning_rate": 50.0})
    store, run_id = trained(tmp_path, BN, lost, data="diabetes", learning_rate=0.01)
    assert {arm for arm, _ in store.trace(run_id).diverged} == {1}
    drawn = seen(store, run_id, "smoothness", direction="gradient_line")
    for axis in drawn.select_yaxes():
        of = [t for t in drawn.data if t.yaxis == axis.plotly_name.replace("axis", "") and t.mode == "lines+markers"]
        there, gone = (np.concatenate([np.array(t.y, float) for t in of if t.name == name]) for name in ("BN", "lost"))
        assert np.isfinite(gone).any()
        assert np.nanmax(there) < 10.0 ** axis.range[1] < 2 * np.nanmax(there)
    for one in (drawn, seen(store, run_id, "curvature")):
        note = one.layout.meta["note"]
        assert "lost diverged at step" in note and "Drawn until then." in note and "left out" not in note
    (lost,) = [t for t in one.data if t.name == "lost"]  # of the curvature
    assert np.isfinite(np.array(lost.y, float)[0])


def test_the_drift_that_is_drawn_is_that_of_what_a_layer_reads(tmp_path):
    store, run_id = trained(tmp_path, BN)
    drawn = seen(store, run_id, "covariate_shift", step="20")
    (told,) = [t for t in drawn.data if t.xaxis == "x3"]
    assert np.isnan(np.array(told.y, float)[0]), "data do not drift, and 0 has no logarithm"
    np.testing.assert_allclose(np.array(told.y, float)[1:], store.trace(run_id).look("shift", 0, 20)["drift"][0, 1:])
