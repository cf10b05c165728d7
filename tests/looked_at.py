"""Runs that are trained as a test asks, what the probes see of them, and their figures then."""

from bnlab import Arm, Experiment, Settings, figures, lineage
from bnlab.executing import execute
from bnlab.figures.inference import cause
from bnlab.keeping import Writer
from bnlab.looking import look
from bnlab.probes import Copies, checked
from bnlab.store import RunStore

ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}), Arm(label="LN", changes={"norm": "layer"}))
WHY = Experiment(
    settings=Settings(depth=4, width=8, steps=40, data="wine", batch_size=16, score_every=20), arms=ARMS, seeds=(0, 1)
)
INFERENCE = Experiment(
    settings=Settings(depth=3, width=8, steps=60, data="wine", batch_size=16, score_every=10, alpha=0.95),
    arms=ARMS,
    seeds=(0, 1),
)
BN = Arm(label="BN", changes={"norm": "batch"})
SMALL = Settings(data="wine", depth=3, width=6, batch_size=16, steps=40, score_every=5)


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


def shown(trace, name, **options):
    """The same of the run of a trace."""
    return seen(trace.store, trace.run.id, name, options)


def recorded(store, arms=({"norm": "batch"},), **settings):
    """The trace of a small run whose arms have these changes."""
    asked = {"depth": 2, "width": 8, "data": "wine", "batch_size": 16, "score_every": 5, "steps": 40} | settings
    arms = tuple(Arm(label=f"arm {i}", changes=changes) for i, changes in enumerate(arms))
    run = store.create(Experiment(settings=Settings(**asked), arms=arms))
    execute(store, run.id, lambda: None)
    return store.trace(run.id)


def forked(store, trace, step=20, arm=0, **changes):
    child = store.fork(trace.run.id, arm, step, changes)
    execute(store, child.id, lambda: None)
    return store.trace(child.id)


def thinned(store, trace, stride):
    """The run as if only every stride-th row of the unit statistics had been kept."""
    with Writer(store, trace.run.id) as writer, store.transaction() as db:
        for table in writer.heavy:
            table.thin(db, stride)
    return store.trace(trace.run.id)


def cause_at(store, trace, t):
    look(store, trace.run.id, "off", {}, t, trace.snapshot(t))
    return cause(store.trace(trace.run.id), 0, t)


def taken(store: RunStore, run_id: str, name: str, step: int, **options) -> None:
    """Look once at a snapshot."""
    look(store, run_id, name, options, step, store.snapshot(run_id, step))


def looked(trace, name, step, **options):
    """What a probe sees of the only stack of a run."""
    vectors = trace.snapshot(step)
    return Copies(trace.experiment).look(name, checked(name, options), step, vectors, lineage.seen(trace))[0]


def slot(trace, arm):
    return trace.slots(arm, "steps")[1][0]
