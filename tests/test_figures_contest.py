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
    assert {t.name for t in drawn.data if t.name} == {"BN"}
    assert "lost diverged at step" in drawn.layout.meta["note"] and "left out" in drawn.layout.meta["note"]
    drawn = seen(store, run_id, "curvature")
    assert "drawn until then." in drawn.layout.meta["note"]
    (lost,) = [t for t in drawn.data if t.name == "lost"]
    assert np.isfinite(np.array(lost.y, float)[0])


def test_the_drift_that_is_drawn_is_that_of_what_a_layer_reads(tmp_path):
    store, run_id = trained(tmp_path, BN)
    drawn = seen(store, run_id, "covariate_shift", step="20")
    (told,) = [t for t in drawn.data if t.xaxis == "x3"]
    assert np.isnan(np.array(told.y, float)[0]), "data do not drift, and 0 has no logarithm"
    np.testing.assert_allclose(np.array(told.y, float)[1:], store.trace(run_id).look("shift", 0, 20)["drift"][0, 1:])
