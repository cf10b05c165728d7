"""What recording costs where the signal gradient vanishes, and so leaves the numbers a processor is fast with.

    python -m benchmarks.vanishing         about half a minute

CPU time of a step of one plain network, recorded over not recorded, in turn; tanh, which passes the signal on, beside
those that lose it. Where the step itself is many times slower, its own gradients are below the least normal number.
"""

import torch

from bnlab.experiment import Arm, Experiment
from bnlab.settings import Settings

from .training import interleaved, lab

NETWORKS = [(50, "tanh"), (50, "sigmoid"), (100, "tanh"), (100, "relu"), (100, "sigmoid")]


def question(depth: int, activation: str) -> Experiment:
    settings = Settings(
        depth=depth, width=64, batch_size=64, activation=activation, init="xavier", learning_rate=0.01, steps=1_000_000
    )
    return Experiment(settings=settings, arms=[Arm(label="no norm")])


def main() -> None:
    torch.set_num_threads(1)
    print("layers   activation   not recorded   recorded/not recorded")
    for depth, activation in NETWORKS:
        asked = question(depth, activation)
        steps = {"off": lab(asked, False), "on": lab(asked, True)}
        spent = interleaved(steps, rounds=9, block=0.1)
        print(f"{depth:6}   {activation:>10}   {spent['']:9.2f} ms   {spent['on']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
