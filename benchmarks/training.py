"""Fully recorded training held against bare PyTorch loops: one nn.Sequential per network, nothing recorded.

    python -m benchmarks.training                     the standard table
    python -m benchmarks.training --only 20/64/32     one shape, depth/width/batch

Each line is one interleaved run: blocks of every contender in turn, so that a busy machine slows all alike;
ratios are medians over rounds of CPU time on one thread. The arms are no norm, BN before, BN after and LN.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn

from bnlab import Arm, Experiment, Settings, train
from bnlab.data import DATASETS, DataSet

ARMS = {
    "none": {},
    "BN before": {"norm": "batch"},
    "BN after": {"norm": "batch", "placement": "after"},
    "LN": {"norm": "layer"},
}
SHAPES = ["20/64/128", "20/64/32", "50/128/128", "10/256/256", "20/256/128"]
N, CLASSES = 4096, 2


def toy() -> tuple[np.ndarray, np.ndarray]:
    """Two inputs, two classes, already in memory: nothing but the training step is timed."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 2))
    y = np.sin(x @ rng.standard_normal((2, CLASSES))).argmax(1)
    return np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]])


DATASETS["toy"] = DataSet("Toy", "For timing.", "classification", N, 1, 2, CLASSES, toy)


def bare_loop(depth: int, width: int, batch: int, arm: str, rule: str, seed: int):
    """A step of the idiomatic loop: nn.Sequential, F.cross_entropy, torch.optim, mini-batches by indexing."""
    torch.manual_seed(seed)
    layers, fan_in = [], 2
    for _ in range(depth):
        layers.append(nn.Linear(fan_in, width))
        layers += {
            "none": lambda: [nn.ReLU()],
            "BN before": lambda: [nn.BatchNorm1d(width), nn.ReLU()],
            "BN after": lambda: [nn.ReLU(), nn.BatchNorm1d(width)],
            "LN": lambda: [nn.LayerNorm(width), nn.ReLU()],
        }[arm]()
        fan_in = width
    net = nn.Sequential(*layers, nn.Linear(fan_in, CLASSES))
    make = torch.optim.Adam if rule == "adam" else torch.optim.SGD
    optimizer = make(net.parameters(), lr=1e-3 if rule == "adam" else 0.05)
    x, y = (torch.from_numpy(a) for a in toy())
    x, order = x.float(), iter(())

    def step():
        nonlocal order
        i = next(order, None)
        if i is None or len(i) < batch:
            order = iter(torch.randperm(N).split(batch))
            i = next(order)
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def question(depth: int, width: int, batch: int, rule: str, seeds: int, scored: bool = False) -> Experiment:
    """The same for the lab. Without `scored` the scorings at intervals are left out."""
    settings = Settings(
        data="toy",
        depth=depth,
        width=width,
        batch_size=batch,
        activation="relu",
        init="he",
        optimizer=rule,
        learning_rate=1e-3 if rule == "adam" else 0.05,
        steps=1_000_000,
        score_every=0 if scored else 1_000_000,
    )
    arms = tuple(Arm(label=label, changes=changes) for label, changes in ARMS.items())
    return Experiment(settings=settings, arms=arms, seeds=tuple(range(seeds)))


def lab(experiment: Experiment, record: bool, device: str = "cpu"):
    """A step of the lab: all arms and seeds at once."""
    records = train(experiment, device=device, record=record)
    return lambda: next(records)


def interleaved(steps: dict, rounds: int, block: float) -> dict[str, float]:
    """Median over rounds of each step's CPU time over the first one's, and the first one's milliseconds under ''."""
    count = {}
    for name, step in steps.items():
        for _ in range(3):
            step()
        start = time.process_time()
        step()
        count[name] = max(1, round(block / max(1e-6, time.process_time() - start)))
    first, spent = next(iter(steps)), {name: [] for name in steps}
    for r in range(rounds):
        for name in list(steps)[:: 1 if r % 2 == 0 else -1]:
            start = time.process_time()
            for _ in range(count[name]):
                steps[name]()
            spent[name].append((time.process_time() - start) / count[name])
    ratio = {n: statistics.median(a / b for a, b in zip(t, spent[first], strict=True)) for n, t in spent.items()}
    return ratio | {"": statistics.median(spent[first]) * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="one shape, depth/width/batch")
    parser.add_argument("--seeds", default="1,4")
    parser.add_argument("--rules", default="sgd,adam")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--block", type=float, default=0.15, help="seconds of one block")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("depth/width/batch  rule  networks   bare loops   recorded   + scored   not recorded   recorded/not recorded")
    for shape in [asked.only] if asked.only else SHAPES:
        size = [int(part) for part in shape.split("/")]
        for seeds in map(int, asked.seeds.split(",")):
            for rule in asked.rules.split(","):
                bare = [bare_loop(*size, arm, rule, seed) for arm in ARMS for seed in range(seeds)]

                def all_bare(bare=bare):
                    for step in bare:
                        step()

                asks, scored = (question(*size, rule, seeds, scored) for scored in (False, True))
                contenders = {
                    "bare": all_bare,
                    "recorded": lab(asks, True),
                    "scored": lab(scored, True),
                    "off": lab(asks, False),
                }
                r = interleaved(contenders, asked.rounds, asked.block)
                print(
                    f"{shape:>17}  {rule:4}  {4 * seeds:8}   {r['']:7.1f} ms   {r['recorded']:8.2f}"
                    f"   {r['scored']:8.2f}   {r['off']:12.2f}   {r['recorded'] / r['off']:8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
