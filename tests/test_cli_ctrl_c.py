"""Ctrl+C ends a command at any moment, and what it was training can be resumed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import QUIET, TINY, asked, bnlab, command, exported, here, identical

from bnlab import executing
from bnlab.experiment import Experiment
from bnlab.process import ABOVE
from bnlab.store import RunStore


def test_ctrl_c_leaves_a_run_that_is_resumed_to_the_same_tables(tmp_path, capsys, monkeypatch):
    long = {"settings": TINY["settings"] | {"steps": 1500, "score_every": 500}, "arms": [{"label": "bn"}], "seeds": [3]}
    long["arms"][0]["changes"] = {"norm": "batch"}
    question, runs = asked(tmp_path, long), tmp_path / "runs"
    store = RunStore(runs)
    process = subprocess.Popen(
        command("train", question, "--out", runs), cwd=ABOVE, env=QUIET, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not (found := store.runs()) or found[0].step < 20:
        assert process.poll() is None and time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130 and "Traceback" not in told
    (broken,) = store.runs()
    assert broken.status == "interrupted" and 20 <= broken.step < 1500
    assert store.trace(broken.id).snapshots()[-1] == broken.step + 1
    _, out, _ = here(monkeypatch, capsys, "runs", runs)
    assert f"interrupted  step {broken.step + 1:>9,}" in out, "the one to go on from"
    resumed = bnlab("resume", runs)
    assert resumed.returncode == 0, resumed.stderr
    assert store.run(broken.id).status == "done" and store.run(broken.id).step == 1500
    whole = store.create(Experiment.model_validate(long))
    executing.execute(store, whole.id, lambda: None)
    identical(exported(runs, whole.id, tmp_path / "whole"), exported(runs, broken.id, tmp_path / "broken"))


@pytest.mark.parametrize("module", ["numpy", "tqdm", "torch"])
def test_ctrl_c_while_the_lab_is_being_loaded_ends_it_without_a_word(tmp_path, module):
    (tmp_path / f"{module}.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    path = os.pathsep.join([str(tmp_path), ABOVE, *filter(None, [QUIET.get("PYTHONPATH")])])
    done = bnlab("probe", tmp_path, "--step", 0, PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_is_not_swallowed_by_what_is_being_loaded(tmp_path):
    """It went on, or ended in a panic of what was loaded."""
    (tmp_path / "tqdm.py").write_text(
        "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept BaseException: tqdm = None"
    )
    path = os.pathsep.join([str(tmp_path), ABOVE, *filter(None, [QUIET.get("PYTHONPATH")])])
    done = bnlab("runs", tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_raises_nothing_where_torch_is_being_loaded_for_a_training(tmp_path):
    """torch ended in 'terminate called after throwing an instance of pybind11::error_already_set', exit code 134."""
    (tmp_path / "torch.py").write_text(
        "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept BaseException as e: print('raised', e)"
    )
    path = os.pathsep.join([str(tmp_path), ABOVE, *filter(None, [QUIET.get("PYTHONPATH")])])
    done = bnlab("train", asked(tmp_path, TINY), "--out", tmp_path / "runs", PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_ctrl_c_or_whoever_ends_a_command_lets_it_clear_up(tmp_path, name, code):
    """What is half written is then removed."""
    (tmp_path / "torch.py").write_text(
        "import atexit, signal\natexit.register(print, 'cleared up')\n"
        f"def set_num_threads(n): signal.raise_signal(signal.{name})"
    )
    path = os.pathsep.join([str(tmp_path), ABOVE, *filter(None, [QUIET.get("PYTHONPATH")])])
    done = bnlab("probe", tmp_path, "--step", 0, PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "cleared up\n", "")


def test_an_export_that_is_ended_leaves_no_unfinished_table(tmp_path, why_trace):
    """It stayed beside the tables for good."""
    ended = (
        "import signal, sys\nfrom bnlab import __main__ as lab\nfrom bnlab.export import tables\n"
        "def larger(rows):\n    yield next(rows)\n    signal.raise_signal(signal.SIGTERM)\n"
        "tables.larger = larger\nsys.exit(lab.main())"
    )
    words = ["export", why_trace.store.directory, "--to", "csv", "--out", tmp_path / "tables"]
    words = [sys.executable, "-c", ended, *map(str, words)]
    done = subprocess.run(words, cwd=ABOVE, env=QUIET, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
    assert (tmp_path / "tables").is_dir() and not [*(tmp_path / "tables").iterdir()]
