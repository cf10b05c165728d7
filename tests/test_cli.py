"""The command line as a person uses it: what it trains, exports, looks at and says."""

import errno
import io
import json
import os
import shlex
import subprocess
import sys

import pandas as pd
import pytest
from command_line import QUIET, TINY, asked, bnlab, command, exported, here, identical, with_settings
from looked_at import recorded

from bnlab import executing
from bnlab.__main__ import diverged, parser
from bnlab.console import unread
from bnlab.database import FULL, Full
from bnlab.experiment import Experiment, Settings
from bnlab.export import tables
from bnlab.process import ABOVE
from bnlab.store import RunStore


def test_training_the_same_file_twice_leaves_two_runs_with_the_same_bits(tmp_path, capsys, monkeypatch):
    question, runs = asked(tmp_path, TINY), tmp_path / "runs"
    train = ("train", question, "--out", runs, "--device", "cpu")
    there = bnlab(*train)
    told = [here(monkeypatch, capsys, *train), (there.returncode, there.stdout, there.stderr)]
    kept = RunStore(runs).runs()  # the newest first
    assert [(run.status, run.step) for run in kept] == [("done", 60)] * 2
    for run, (code, out, err) in zip(kept, told, strict=True):
        assert code == 0, err
        assert "60/60" in err and "steps/s" in err and "Traceback" not in err
        assert run.id in out and "done" in out
    first, second = (exported(runs, run.id, tmp_path / run.id) for run in kept)
    assert set(first) == {"steps", "layers", "units", "scores", "population"}
    assert set(first["steps"].step) == set(range(60))
    identical(first, second)
    done = bnlab("export", runs, "--to", "parquet", "--out", tmp_path / "tables")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert sorted(done.stdout.split()) == sorted(str(path) for path in (tmp_path / "tables").iterdir())
    identical(first, {path.stem: pd.read_parquet(path) for path in sorted((tmp_path / "tables").iterdir())})
    code, out, _ = here(monkeypatch, capsys, "runs", runs)
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == [run.id for run in kept]
    code, _, err = here(monkeypatch, capsys, "resume", runs)
    assert code == 2 and err == f"python -m bnlab: run {kept[0].id} is done; nothing is left to train.\n"


def test_where_the_disk_is_full_and_stays_full_the_training_has_failed(tmp_path, capsys, monkeypatch):
    transaction, there = RunStore.transaction, RunStore(tmp_path / "runs")

    def full(store, grows=False):
        if any(run.step >= 0 for run in there.runs()):
            raise Full(FULL)
        return transaction(store, grows)

    monkeypatch.setattr(RunStore, "transaction", full)
    code, out, err = here(monkeypatch, capsys, "train", asked(tmp_path, TINY), "--out", tmp_path / "runs")
    assert (code, out) == (1, "") and err.endswith(f"\npython -m bnlab: {FULL}\n") and "Traceback" not in err


def test_a_run_of_no_steps_is_exported(tmp_path, capsys, monkeypatch):
    question = asked(tmp_path, with_settings(steps=0))
    assert here(monkeypatch, capsys, "train", question, "--out", tmp_path / "runs")[0] == 0
    assert here(monkeypatch, capsys, "export", tmp_path / "runs", "--to", "csv", "--out", tmp_path / "tables")[0] == 0
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv")
    assert set(scores.step) == {0} and set(scores.split) == {"train", "test"}


@pytest.mark.parametrize("to", tables.FORMATS)
def test_a_run_is_exported_where_the_system_has_no_utf_8(why_trace, tmp_path, to):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = bnlab("export", why_trace.store.directory, "--to", to, "--out", tmp_path / "für mich", **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "für mich" / f"steps.{to}").stat().st_size


def test_a_run_that_was_begun_on_a_device_that_is_not_there_says_where_it_can_go_on(tmp_path, capsys, monkeypatch):
    """It was told to choose another, and had no such choice."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    store, settings = RunStore(tmp_path), Settings(depth=2, width=8, steps=30, data="wine", batch_size=16)
    run = store.create(Experiment(settings=settings))
    executing.execute(store, run.id, lambda: None, steps=10)
    store.change(run.id, device="cuda")
    code, _, err = here(monkeypatch, capsys, "resume", tmp_path)
    assert code == 2 and "it was begun on CUDA, which this machine does not have. Resume it where" in err


def test_a_run_that_is_being_trained_is_not_resumed(tmp_path, capsys, monkeypatch):
    store = RunStore(tmp_path)
    store.change(store.create(Experiment.model_validate_json(json.dumps(TINY))).id, status="running")
    code, _, said = here(monkeypatch, capsys, "resume", tmp_path)
    assert code == 2 and "is being trained by another process" in said and "free again within 30 seconds" in said


def test_the_weights_that_a_resumed_run_goes_on_from_are_not_held_while_it_trains(tmp_path, capsys, monkeypatch):
    """Of large networks they are hundreds of MB. The bar begins where they are all the same."""
    store, read = RunStore(tmp_path), []
    run = store.create(Experiment.model_validate_json(json.dumps(TINY)))
    executing.execute(store, run.id, lambda: None, steps=15)
    last = RunStore.last_snapshot
    monkeypatch.setattr(RunStore, "last_snapshot", lambda *of: read.append(1) or last(*of))
    code, _, err = here(monkeypatch, capsys, "resume", tmp_path)
    assert code == 0 and len(read) == 1, "by whoever trains"
    assert "15/60" in err and "60/60" in err


def test_of_two_who_resume_a_run_at_one_time_one_trains_it_and_the_other_is_told(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(Experiment.model_validate_json(json.dumps(with_settings(steps=1500, score_every=500))))
    two = [
        subprocess.Popen(command("resume", tmp_path), cwd=ABOVE, env=QUIET, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = {one.communicate()[1].splitlines()[-1]: one.returncode for one in two}
    ((refused, code),) = [(line, code) for line, code in told.items() if "another process" in line]
    assert code == 2 and refused.startswith(f"python -m bnlab: run {run.id} is being trained by another process,")
    assert sorted(told.values()) == [0, 2] and store.run(run.id).status == "done"
    whole = store.create(run.experiment)
    executing.execute(store, whole.id, lambda: None)
    identical(exported(tmp_path, whole.id, tmp_path / "whole"), exported(tmp_path, run.id, tmp_path / "run"))


def test_a_console_that_lacks_a_character_is_told_the_rest(tmp_path, capsys, monkeypatch):
    question = asked(tmp_path, with_settings(steps=1))  # its name holds a multiplication sign
    with monkeypatch.context() as narrow:
        console = io.TextIOWrapper(io.BytesIO(), "cp437")
        narrow.setattr(sys, "stdout", console)
        code, _, err = here(narrow, capsys, "train", question, "--out", tmp_path / "runs")
        assert code == 0 and b"Wine, 2 ? 4" in console.buffer.getvalue(), err
    done = bnlab("runs", tmp_path / "runs", PYTHONIOENCODING="cp437")
    assert done.returncode == 0 and "Wine, 2 ? 4" in done.stdout, done.stderr


def test_a_closed_standard_output_is_no_error(tmp_path):
    RunStore(tmp_path).create(Experiment.model_validate_json(json.dumps(TINY)))
    shell = ["sh", "-c", '"$@" >&-', "sh", *command("runs", tmp_path)]
    done = subprocess.run(shell, cwd=ABOVE, env=QUIET, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_of_a_windows_editor_is_read(tmp_path, capsys, monkeypatch):
    question = tmp_path / "question.json"
    question.write_bytes(b"\xef\xbb\xbf" + json.dumps(with_settings(steps=1)).encode())
    assert here(monkeypatch, capsys, "train", question, "--out", tmp_path / "runs")[0] == 0


def test_arms_that_do_not_differ_are_told_before_they_are_trained(tmp_path, capsys, monkeypatch):
    question = asked(tmp_path, with_settings(steps=1) | {"arms": [{"label": "a"}, {"label": "b"}]})
    code, _, err = here(monkeypatch, capsys, "train", question, "--out", tmp_path / "runs")
    assert code == 0 and err.startswith("a and b ask the same question: their curves will coincide.\n")


def test_arms_that_diverged_are_told_after_the_training_and_in_the_list(tmp_path, capsys, monkeypatch):
    """The run was done, and that was all."""
    wild = {"learning_rate": 100.0, "activation": "relu"}
    arms = [{"label": label, "changes": changes} for label, changes in (("tame", {}), ("boom", wild))]
    question = asked(tmp_path, with_settings(depth=3, width=8) | {"arms": arms, "seeds": [0]})
    code, out, _ = here(monkeypatch, capsys, "train", question, "--out", tmp_path / "runs", "--device", "cpu")
    (run,) = RunStore(tmp_path / "runs").runs()
    ((network, (step, layer)),) = run.diverged.items()
    assert code == 0 and run.status == "done" and network == (1, 0) and layer
    assert out.splitlines()[1:] == [f"1 of 2 arms diverged: boom at step {step} in layer {layer}."]
    _, out, _ = here(monkeypatch, capsys, "runs", tmp_path / "runs")
    assert out.endswith(f"  {run.name} (1 of 2 networks diverged)\n")
    twice = Experiment(arms=run.experiment.arms, seeds=(0, 1))
    some = run._replace(experiment=twice, diverged={(0, 1): (1234, 0), (1, 1): (step + 1, 0), **run.diverged})
    assert diverged(some) == (
        f"2 of 2 arms diverged: tame at step 1,234 in the readout (1 of 2 seeds), boom at step {step} in layer {layer}."
    )


def test_the_command_takes_options_and_leaves_out_what_does_not_exist(why_trace, monkeypatch, capsys, tmp_path):
    probe = ("probe", why_trace.store.directory, "--step", 60)
    code, out, _ = here(monkeypatch, capsys, *probe, "--probe", "undo", "--set", "layer=3", "--out", tmp_path)
    assert code == 0 and "undo at step 60, layer 3 (training mode, the next mini-batch)" in out
    assert "BN" in out and "nan" not in out and "no norm" not in out
    assert "nan" not in (tmp_path / "undo.csv").read_text().lower()
    code, out, _ = here(monkeypatch, capsys, *probe, "--probe", "jacobian")
    assert ", layer, layer 2, quantile 0 0.25 0.5 0.75 1: " in out and ", layer, layer 3, quantile" in out
    assert ", product, layer 1, quantile" in out and ", training, layer 1 2: " in out
    run = why_trace.run.id
    for words, error in (
        (("--probe", "undo", "--set", "layer=0"), "layer is 0; allowed is 1 to 100."),
        (("--probe", "invariance", "--set", "layer=5"), f"layer is 5; allowed is 1 to 3, the depth of run {run}."),
        (("--set", "layer=1"), "--set is given without --probe"),
    ):
        code, _, told = here(monkeypatch, capsys, *probe, *words)
        assert code == 2 and error in told


@pytest.mark.parametrize(
    ("alphas", "words", "alpha"),
    [((0.5, 0.5), (), 0.5), ((0.5, 0.5), ("--set", "alpha=0.7"), 0.7), ((0.5, 0.6), (), 0.9)],
)
def test_a_probe_takes_the_alpha_that_all_arms_have_and_names_it(tmp_path, monkeypatch, capsys, alphas, words, alpha):
    """It took 0.9 whatever they had."""
    arms = ({"alpha": 0.1}, *({"norm": "batch", "alpha": one} for one in alphas))  # the first has no batch norm
    trace = recorded(RunStore(tmp_path), arms, steps=5)
    code, out, _ = here(monkeypatch, capsys, "probe", tmp_path, "--step", 5, "--probe", "inference", *words)
    assert code == 0 and out.startswith(f"inference at step 5, alpha {alpha} (inference mode)")
    assert trace.look("inference", 1, 5, alpha=alpha)


def test_a_probe_of_a_layer_names_the_one_it_looks_at(tmp_path, monkeypatch, capsys):
    trace = recorded(RunStore(tmp_path), ({"depth": 1}, {"norm": "batch", "depth": 1}), steps=2)
    code, out, _ = here(monkeypatch, capsys, "probe", tmp_path, "--step", 0, "--probe", "undo")
    assert code == 0 and "undo at step 0, layer 1 (" in out
    assert trace.look("undo", 1, 0, layer=1) and not trace.look("undo", 1, 0, layer=2)


FULL_DEVICE = ["2>/dev/full"] if os.path.exists("/dev/full") else []  # macOS has none


@pytest.mark.parametrize("lost", ["2>&-", *FULL_DEVICE, "2>&1 >/dev/null | true"])
def test_a_training_whose_progress_nobody_reads_goes_on(tmp_path, lost):
    """It failed over its progress bar, or never began."""
    question, runs = asked(tmp_path, TINY), tmp_path / "runs"
    done = subprocess.run(
        f"{shlex.join(command('train', question, '--out', runs))} {lost}", shell=True, cwd=ABOVE, env=QUIET
    )
    (run,) = RunStore(runs).runs()
    assert done.returncode == 0 and run.status == "done"


def test_where_there_is_no_standard_error_what_is_wrong_is_not_among_the_tables(tmp_path):
    line = f"{shlex.join(command('runs', tmp_path))} 2>&-"
    done = subprocess.run(line, shell=True, cwd=ABOVE, env=QUIET, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")


def test_every_command_and_option_says_what_it_is_for(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # else as wide as the terminal in which the tests run
    (commands,) = (action for action in parser()._actions if action.choices)
    for name, of in commands.choices.items():
        assert of.description and all(action.help for action in of._actions), name
        assert all(len(line) <= 80 for line in of.format_help().splitlines())


def test_a_reader_that_has_seen_enough_is_no_error(why_trace):
    probe = command("probe", why_trace.store.directory, "--step", "60", "--probe", "jacobian")
    with subprocess.Popen(probe, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ABOVE) as one:
        one.stdout.close()
        assert one.wait(60) == 0
        assert b"BrokenPipe" not in one.stderr.read()


def test_on_windows_a_reader_that_has_seen_enough_is_an_invalid_argument_and_a_wrong_name_still_an_error(monkeypatch):
    gone, name = OSError(errno.EINVAL, "Invalid argument"), OSError(errno.EINVAL, "Invalid argument", "a?.json")
    assert [unread(error) for error in (BrokenPipeError(), gone, name)] == [True, False, False]
    with monkeypatch.context() as windows:
        windows.setattr("os.name", "nt")
        told = [unread(error) for error in (BrokenPipeError(), gone, name, ValueError())]
    assert told == [True, True, False, False]
