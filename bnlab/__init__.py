"""Batch Normalization Lab: deep networks with and without batch norm, trained in front of you, every step recorded.

To understand what the lab does, read in this order:

    norms.py         batch norm and layer norm, and the moving averages; normalization.py: forward and backward
    activations.py   the nonlinearities; inits.py: the initial weights; optimizers.py: the update rules
    mlp.py           the networks
    settings.py      one training run as data; experiment.py: the comparison
    state.py         many networks at once, as vectors; stack.py: their training step
    quantities.py    what is measured at every step; record.py: what a record of a step holds
    group.py         a stack with its data: steps, scores, going on without what has diverged
    train.py         training as a generator of records
    run.py           what was asked and how far it is; store.py: all runs; jobs.py: the processes that execute them
    figures/         traces in, figures out
"""

from . import ctrl_c  # noqa: F401  first: the others take a second
from .experiment import Arm, Experiment, Settings
from .train import train

__all__ = ["Arm", "Experiment", "Settings", "train"]
