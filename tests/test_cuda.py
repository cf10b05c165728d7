"""The same code on a CUDA device: the same numbers, the same promises, and no step waits for the device."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from twins import every_kind

from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.record import layout
from bnlab.sampling import DRAWN
from bnlab.store import RunStore
from bnlab.train import CUDA_WORTH, device_for, train

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
RULES = ["sgd", "momentum", "adam"]


def rows(experiment, device, **how):
    """Everything recorded of every step: {table: [steps, row]}."""
    seen = [[part.rows for part in r.parts] for r in train(experiment, device=device, **how) if r.parts]
    return [{table: np.stack([parts[i][table] for parts in seen]) for table in seen[0][i]} for i in range(len(seen[0]))]


def weights(experiment, **how):
    """The snapshot at the end, to the last bit."""
    return [r.snapshot() for r in train(experiment, device="cuda", **how)][-1]


def noisy(**settings):
    """Every kind, and one with noise."""
    experiment = every_kind(**settings)
    changes = {"norm": "batch", "noise_shift": 0.3, "noise_scale": 0.2}
    return experiment.model_copy(update={"arms": (*experiment.arms, Arm(label="noisy", changes=changes))})


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_cuda_records_what_the_cpu_does(rule, activation):
    experiment = noisy(depth=4, width=16, batch_size=32, steps=20, optimizer=rule, activation=activation)
    ((cpu,), (cuda,)) = (rows(experiment, device, dtype=torch.float64) for device in ("cpu", "cuda"))
    columns = layout(experiment, 0)
    for table, quantities in columns.items():
        for name, (start, shape) in quantities.items():
            here = slice(start, start + int(np.prod(shape)))
            scale = np.abs(cpu[table][:, here]).max()
            np.testing.assert_allclose(
                cuda[table][:, here], cpu[table][:, here], rtol=1e-6, atol=1e-9 * scale, err_msg=name
            )


def test_scores_and_population_statistics_are_those_of_the_cpu():
    experiment = every_kind(depth=4, width=16, batch_size=32, steps=12, score_every=4)
    records = (train(experiment, device=device, dtype=torch.float64) for device in ("cpu", "cuda"))
    for cpu, cuda in zip(*records, strict=True):
        assert len(cpu.scores) == len(cuda.scores)
        for a, b in zip(cpu.scores, cuda.scores, strict=True):
            assert a[:4] == b[:4]
            np.testing.assert_allclose(b.loss, a.loss, rtol=1e-6)
            np.testing.assert_allclose(b.accuracy, a.accuracy, atol=1e-3)
        for a, b in zip(cpu.population, cuda.population, strict=True):
            for there, here in zip(a[2:], b[2:], strict=True):
                np.testing.assert_allclose(here, there, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_no_step_waits_for_the_device(rule, record):
    experiment = noisy(depth=3, width=16, batch_size=32, optimizer=rule, weight_decay=1e-4)
    with torch.no_grad():
        group = Group(experiment, 0, "cuda", torch.float32)
        group.step(0, record)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for t in range(1, DRAWN + 2):  # beyond a drawing of mini-batches
                group.step(t, record)
            with pytest.raises(RuntimeError, match="synchroniz"):  # else the loop above has shown nothing
                group.stack.loss.tolist()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_run_is_the_same_to_the_last_bit_again_resumed_and_unrecorded():
    experiment = noisy(depth=4, width=24, batch_size=32, steps=40, optimizer="adam")
    whole = weights(experiment)
    for again in (weights(experiment), weights(experiment, record=False)):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, again, strict=True))
    for record in train(experiment, device="cuda"):
        if record.step == 17:
            start = record.step + 1, record.snapshot()
            break
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, weights(experiment, start=start), strict=True))


def test_what_leaves_float32_is_told_as_on_the_cpu():
    """Gradients whose squares are 0 in float32, and values that hardly differ."""
    settings = Settings(depth=30, width=16, batch_size=32, steps=2, activation="sigmoid", init_gain=0.01)
    experiment = Experiment(settings=settings, arms=(Arm(label="none"), Arm(label="BN", changes={"norm": "batch"})))
    ((cpu,), (cuda,)) = (rows(experiment, device) for device in ("cpu", "cuda"))
    for name in ("grad_norm", "signal_grad_norm", "a_std", "z_std"):
        start, shape = layout(experiment, 0)["layers"][name]
        there, here = (of["layers"][0, start : start + int(np.prod(shape))].reshape(shape) for of in (cpu, cuda))
        normal = there > 1e-36
        assert (there < 1e-18).any() or name in ("a_std", "z_std")
        np.testing.assert_allclose(here[normal], there[normal], rtol=2e-3, err_msg=name)


def test_a_network_that_diverges_is_left_out_and_the_others_go_on(tmp_path):
    arms = (
        Arm(label="lost", changes={"learning_rate": 100.0, "weight_decay": 1.0}),
        Arm(label="BN", changes={"norm": "batch"}),
    )
    settings = Settings(
        depth=3, width=16, batch_size=32, steps=60, score_every=10, learning_rate=0.01, activation="relu"
    )
    told = {}
    for device in ("cpu", "cuda"):
        store = RunStore(tmp_path / device)
        run = store.create(Experiment(settings=settings, arms=arms), device=device)
        execute(store, run.id, lambda: None)
        told[device] = store.run(run.id)
        assert told[device].status == "done" and told[device].device == device
        store.close()
    assert told["cuda"].diverged == told["cpu"].diverged and len(told["cpu"].diverged) == 1


def test_the_command_trains_on_the_device(tmp_path):
    asked = tmp_path / "experiment.json"
    asked.write_text(every_kind(depth=3, width=16, batch_size=32, steps=30).model_dump_json())
    command = [sys.executable, "-m", "bnlab", "train", asked, "--out", tmp_path / "runs", "--device", "cuda"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    store = RunStore(tmp_path / "runs")
    (run,) = store.runs()
    assert run.status == "done" and run.device == "cuda" and run.step == 30
    store.close()


def test_auto_takes_the_device_for_large_networks_alone():
    small, large = (every_kind(depth=8, width=width, batch_size=128) for width in (8, 1024))
    assert CUDA_WORTH > 0
    assert device_for(small, "auto") == "cpu" and device_for(large, "auto") == "cuda"
