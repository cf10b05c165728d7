"""Runs that are trained as a test asks, and their figures, once the probes have looked."""

from bnlab import Arm, Experiment, Settings, figures
from bnlab.store import RunStore
from bnlab.work import execute, look

ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}), Arm(label="LN", changes={"norm": "layer"}))
EXPERIMENT = Experiment(
    settings=Settings(depth=4, width=8, steps=40, data="wine", batch_size=16, score_every=20), arms=ARMS, seeds=(0, 1)
)


def trained(directory, settings, arms, seeds=(0,)):
    """The store and the id of a run that has been trained to its end."""
    store = RunStore(directory)
    run = store.create(Experiment(settings=settings, arms=arms, seeds=seeds))
    execute(store, run.id, lambda: None)
    return store, run.id


def seen(store, run_id, name, options=()):
    """The figure, after the looks it asks for."""
    for probe, step, of in figures.needs(name, store.trace(run_id), dict(options)):
        look(store, run_id, probe, of, step, store.trace(run_id).snapshot(step))
    return figures.draw(name, store.trace(run_id), dict(options))
