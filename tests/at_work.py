"""Experiments that train for long or not, and how to wait for what real processes make of them."""

import time

from bnlab.experiment import Experiment, Settings

LONG = Experiment(settings=Settings(steps=100_000, depth=6, width=32, score_every=1000))
SHORT = Experiment(settings=Settings(steps=120, depth=6, width=32, score_every=30))


def until(condition, seconds=180):
    """Wait for a condition; generous, for slow machines."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return value


def started(jobs, experiment):
    run = jobs.store.create(experiment)
    jobs.start(run.id)
    until(lambda: jobs.store.run(run.id).step >= 10)
    return run.id


def status(jobs, run_id):
    return jobs.store.run(run_id).status


def becomes(jobs, run_id, word):
    until(lambda: status(jobs, run_id) == word)
