"""A CUDA device held against one thread of the processor: recorded steps of the same experiment, in turn.

    python -m benchmarks.devices

Each line is one shape and number of networks; times are medians of blocks by the wall clock, as training waits for
them, the way of the rows to the processor included. "auto" takes the device above train.CUDA_WORTH multiply-adds a
step.
"""

import argparse
import statistics
import time

import torch

from bnlab.train import CUDA_WORTH, step_cost

from .training import lab, question

SHAPES = ["10/32/32", "20/64/128", "20/128/128", "10/256/256", "20/256/128", "10/512/128"]

TOGETHER = 8  # steps whose rows travel together, as those between two commits do


def block(step, seconds: float) -> float:
    """Milliseconds a step, over about so many seconds; the rows of all steps have arrived."""
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        records = [step() for _ in range(TOGETHER)]
        assert all(part.rows or not part.on_device for record in records for part in record.parts)
        torch.cuda.synchronize()
        done += len(records)
    return (time.perf_counter() - start) / done * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block", type=float, default=0.5, help="seconds of one block")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{torch.cuda.get_device_name()}; auto takes it above {CUDA_WORTH:.0e} multiply-adds a step")
    print("depth/width/batch  rule  networks   multiply-adds        cpu       cuda   not recorded   cuda/cpu")
    for shape in SHAPES:
        size = [int(part) for part in shape.split("/")]
        for seeds in (1, 4):
            for rule in ("sgd", "adam") if shape == "20/64/128" else ("adam",):
                asks = question(*size, rule, seeds)
                steps = {
                    "cpu": lab(asks, True),
                    "cuda": lab(asks, True, "cuda"),
                    "off": lab(asks, False, "cuda"),
                }
                for step in steps.values():
                    step()
                spent = {name: [] for name in steps}
                for _ in range(asked.rounds):
                    for name, step in steps.items():
                        spent[name].append(block(step, asked.block))
                ms = {name: statistics.median(times) for name, times in spent.items()}
                print(
                    f"{shape:>17}  {rule:4}  {4 * seeds:8}   {step_cost(asks):13.1e}   {ms['cpu']:5.1f} ms"
                    f"   {ms['cuda']:5.1f} ms   {ms['off']:9.1f} ms   {ms['cuda'] / ms['cpu']:8.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
