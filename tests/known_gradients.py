"""Traces whose gradient norms a test has chosen."""

import numpy as np
from known_trace import KnownTrace

from bnlab.experiment import Arm, Experiment, Settings
from bnlab.figures import gradients

L, N = 20, 30
ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}))
EXPERIMENT = Experiment(settings=Settings(depth=L, width=4, steps=N), arms=ARMS, seeds=(3, 5))


def flowing(*factors, depth=L, diverged=None):
    """A trace whose signal gradients change by these factors a layer towards the input, one an arm."""
    towards = depth - np.arange(1, depth + 1)
    values = {}
    for arm, factor in enumerate(factors):
        norms = float(factor) ** towards * 2.0
        values["signal_grad_norm", arm] = np.linspace(1, 2, N)[:, None, None] * np.array([1, 3])[:, None] * norms
        values["grad_norm", arm] = 3 * values["signal_grad_norm", arm]
    experiment = EXPERIMENT.model_copy(update={"settings": Settings(depth=depth, width=4, steps=N)})
    return KnownTrace(experiment, {k: v.astype(np.float32) for k, v in values.items()}, diverged=diverged)


def shaped(*norms, seeds=(3, 5), diverged=None):
    """A trace of one arm whose networks have these signal gradients, [L] each, at every step."""
    values = np.repeat(np.array(norms, np.float32)[None], N, 0)
    settings = Settings(depth=values.shape[2], width=4, steps=N)
    experiment = Experiment(settings=settings, arms=ARMS[:1], seeds=tuple(seeds)[: len(norms)])
    return KnownTrace(experiment, {(q, 0): values.copy() for q in gradients.NORMS}, diverged=diverged)
