"""The command line as a person uses it: exit codes, one line for what is wrong, runs that can be interrupted."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from looked_at import recorded

from bnlab import executing
from bnlab.__main__ import diverged, main
from bnlab.database import FULL, Full
from bnlab.experiment import Experiment
from bnlab.export import tables
from bnlab.process import ABOVE
from bnlab.store import RunStore

TINY = {
    "settings": {"data": "wine", "depth": 2, "width": 4, "batch_size": 16, "steps": 60, "score_every": 20},
    "seeds": [0, 1],
}
QUIET = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONWARN", "BNLAB"))}


def command(*words):
    return [sys.executable, "-m", "bnlab", *map(str, words)]


def bnlab(*words, **more):
    return subprocess.run(command(*words), cwd=ABOVE, env=QUIET | more, capture_output=True, text=True)


def here(monkeypatch, capsys, *words):
    """The same command in this process, which is faster: (exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["bnlab", *map(str, words)])
    monkeypatch.setattr("bnlab.__main__.on", lambda *_: None)  # Ctrl+C stays pytest's
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def asked(directory, experiment, name="question.json"):
    path = directory / name
    path.write_text(experiment if isinstance(experiment, str) else json.dumps(experiment))
    return path


def exported(directory, run_id, to):
    """The tables of a run as frames."""
    paths = tables.write(RunStore(directory).trace(run_id), "parquet", to)
    return {path.stem: pd.read_parquet(path) for path in sorted(paths)}


def identical(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert list(a[name]) == list(b[name])
        for column in a[name]:
            x, y = a[name][column].to_numpy(), b[name][column].to_numpy()
            if x.dtype == np.float32:
                x, y = x.view(np.uint32), y.view(np.uint32)
            np.testing.assert_array_equal(x, y, err_msg=f"{name}.{column}")


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


def test_where_the_disk_is_full_and_stays_full_the_training_has_failed(tmp_path, capsys, monkeypatch):
    transaction, there = RunStore.transaction, RunStore(tmp_path / "runs")

    def full(store):
        if any(run.step >= 0 for run in there.runs()):
            raise Full(FULL)
        return transaction(store)

    monkeypatch.setattr(RunStore, "transaction", full)
    code, out, err = here(monkeypatch, capsys, "train", asked(tmp_path, TINY), "--out", tmp_path / "runs")
    assert (code, out) == (1, "") and err.endswith(f"\npython -m bnlab: Full: {FULL}\n") and "Traceback" not in err


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


def test_ctrl_c_in_a_command_lets_it_clear_up(tmp_path):
    (tmp_path / "torch.py").write_text(
        "import atexit, signal; atexit.register(print, 'cleared up'); signal.raise_signal(signal.SIGINT)"
    )
    path = os.pathsep.join([str(tmp_path), ABOVE, *filter(None, [QUIET.get("PYTHONPATH")])])
    done = bnlab("probe", tmp_path, "--step", 0, PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleared up\n", "")


def with_settings(**changes):
    return TINY | {"settings": TINY["settings"] | changes}


def test_a_run_of_no_steps_is_exported(tmp_path, capsys, monkeypatch):
    question = asked(tmp_path, with_settings(steps=0))
    assert here(monkeypatch, capsys, "train", question, "--out", tmp_path / "runs")[0] == 0
    assert here(monkeypatch, capsys, "export", tmp_path / "runs", "--to", "csv", "--out", tmp_path / "tables")[0] == 0
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv")
    assert set(scores.step) == {0} and set(scores.split) == {"train", "test"}


def test_a_run_that_is_being_trained_is_not_resumed(tmp_path, capsys, monkeypatch):
    store = RunStore(tmp_path)
    store.change(store.create(Experiment.model_validate_json(json.dumps(TINY))).id, status="running")
    code, _, said = here(monkeypatch, capsys, "resume", tmp_path)
    assert code == 2 and "is being trained by another process" in said and "free again within 30 seconds" in said


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


WRONG = [
    (TINY | {"seeds": [" 1"]}, 'seeds are " 1"; allowed are 1 to 8 whole numbers from 0 to 2,147,483,647.'),
    (TINY | {"seeds": [-1]}, "seeds are -1; allowed are 1 to 8 whole numbers from 0 to 2,147,483,647."),
    (TINY | {"arms": [{"changes": {}}]}, "an arm has no label; allowed are 1 to 40 characters."),
    (TINY | {"arms": [{"label": " "}]}, "an arm has a blank label; allowed are 1 to 40 characters."),
    (with_settings(depth="3"), 'depth is "3"; allowed is a whole number from 1 to 100.'),
    (with_settings(steps=1e7), "steps is 10000000.0; allowed is a whole number from 0 to 1,000,000."),
    (with_settings(depht=3), "depht is not a known field; known are data, standardize, "),
    (TINY | {"sedes": [1]}, "sedes is not a known field; known are settings, arms, seeds."),
    (with_settings(depth=0), "depth is 0; allowed is a whole number from 1 to 100."),
    (with_settings(depth=101, width=0), "width is 0; allowed is a whole number from 1 to 1,024."),
    (with_settings(activation="relux"), "activation is relux; allowed is one of linear, sigmoid, tanh,"),
    (with_settings(learning_rate="fast"), "learning_rate is fast, which is no number; allowed is above 0 and"),
    (with_settings(batch_size=143), "batch_size is 143; wine has only 142 training examples."),
    (with_settings(batch_size=1, norm="batch"), "batch_size is 1; batch norm needs at least 2 examples"),
    ('{"settings": {"depth": 1e999}}', "depth is "),
    ('{"settings": {"alpha": NaN}}', ""),
    ('{"settings": ', "this is not valid JSON: EOF while parsing a value at line 1 column 13."),
    ('{"settings": {"depth": 3, "depth": 4}}', "depth stands twice in the same object. Remove one of the two."),
    ("[" * 3000, "this is not valid JSON: recursion limit exceeded"),
    ("[]", 'the experiment is []; allowed are named fields, as {"settings": {"depth": 30}, "seeds": [0, 1]}.'),
    ('{"settings": null}', 'settings is null; allowed are named fields, as {"depth": 30}.'),
    ('{"arms": [null]}', 'an arm is null; allowed are named fields, as {"label": "BN", "changes": {"norm": "batch"}}.'),
    ('{"arms": [{"label": "a", "changes": []}]}', 'changes is []; allowed are named fields, as {"norm": "batch"}.'),
    ("", ""),
]


@pytest.mark.parametrize("experiment, sentence", WRONG)
def test_a_bad_file_is_one_line_on_stderr_and_leaves_nothing(tmp_path, monkeypatch, capsys, experiment, sentence):
    question = asked(tmp_path, experiment)
    code, out, err = here(monkeypatch, capsys, "train", question, "--out", tmp_path / "runs")
    assert code == 2 and out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"python -m bnlab: {question}: ") and sentence in line
    assert line.count("allowed") <= 2, "one mistake is one sentence"
    assert not (tmp_path / "runs").exists()


COMMANDS = [
    (["train", "missing.json", "--out", "runs"], "missing.json: No such file or directory."),
    (["train", "{dir}", "--out", "runs"], "Is a directory."),
    (["train", "binary", "--out", "runs"], ""),
    (["train", "good.json", "--out", "binary"], "binary"),
    (["train", "good.json"], "the following arguments are required: --out"),
    (["train", "good.json", "--out", "runs", "--device", "tpu"], "invalid choice: 'tpu'"),
    (["learn"], "invalid choice: 'learn'"),
    ([], "required: command"),
    (["export", "empty", "--to", "csv", "--out", "tables"], "there is no run in {dir}/empty. Train one: "),
    (["export", "nowhere", "--to", "csv", "--out", "tables"], "there is no run in {dir}/nowhere. Train one: "),
    (["export", "fresh", "--to", "csv", "--out", "tables"], "there is no run in {dir}/fresh."),
    (["export", "fresh", "--to", "csv", "--out", "tables", "--run", "x"], "There is no run 'x' here."),
    (["export", "fresh", "--to", "excel", "--out", "tables"], "invalid choice: 'excel'"),
    (["export", "spoilt", "--to", "csv", "--out", "tables"], "{dir}/spoilt/runs.sqlite: file is not a database."),
    (["train", "good.json", "--out", "spoilt"], "{dir}/spoilt/runs.sqlite: file is not a database."),
    (["train", "good.json", "--out", ""], "argument --out: it is empty; name a directory."),
    (["export", "fresh", "--to", "csv", "--out", " "], "argument --out: it is empty; name a directory."),
    (["runs", ""], "argument DIR: it is empty; name a directory."),
    (["export", "fresh", "--to", "csv", "--out", "tables", "--run", ""], "There is no run '' here."),
    (["resume", "empty"], "there is no run in {dir}/empty. Train one: "),
    (["runs", "nowhere"], "there is no run in {dir}/nowhere. Train one: "),
]


@pytest.mark.parametrize("words, sentence", COMMANDS)
def test_a_bad_command_is_one_line_on_stderr(tmp_path, monkeypatch, capsys, words, sentence):
    asked(tmp_path, TINY, "good.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("empty", "spoilt"):
        (tmp_path / name).mkdir()
    (tmp_path / "spoilt" / "runs.sqlite").write_bytes(b"no database" * 100)
    RunStore(tmp_path / "fresh").close()
    places = ("missing.json", "good.json", "binary", "empty", "spoilt", "fresh", "nowhere", "tables", "runs")
    words = [tmp_path / w if w in places and i else w.format(dir=tmp_path) for i, w in enumerate(words)]
    code, out, err = here(monkeypatch, capsys, *words)
    assert code == 2 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("python -m bnlab") and sentence.format(dir=tmp_path) in line
    for name in ("tables", "runs", "nowhere"):
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "experiment, words",
    [
        (with_settings(depht=3), ["train", "question.json", "--out", "runs"]),
        ('{"settings": ', ["train", "question.json", "--out", "runs"]),
        (TINY, ["train", "missing.json", "--out", "runs"]),
        (TINY, ["export", "runs", "--to", "csv", "--out", "tables"]),
        (TINY, ["learn"]),
    ],
)
def test_what_is_wrong_is_one_line_for_the_shell_too(tmp_path, experiment, words):
    asked(tmp_path, experiment)
    path = os.pathsep.join([ABOVE, *filter(None, [QUIET.get("PYTHONPATH")])])
    done = subprocess.run(
        command(*words), cwd=tmp_path, env=QUIET | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["question.json"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_one_line_on_stderr(tmp_path, capsys, monkeypatch):
    train = ("train", asked(tmp_path, TINY), "--out", tmp_path / "runs", "--device", "cuda")
    code, _, err = here(monkeypatch, capsys, *train)
    assert code == 2 and err == (
        "python -m bnlab: device is cuda; this machine has no CUDA device that torch can use. Choose cpu or auto.\n"
    )
    assert not (tmp_path / "runs").exists()


def test_the_command_takes_options_and_leaves_out_what_does_not_exist(why_trace, monkeypatch, capsys, tmp_path):
    probe = ("probe", why_trace.store.directory, "--step", 60)
    code, out, _ = here(monkeypatch, capsys, *probe, "--probe", "undo", "--set", "layer=3", "--out", tmp_path)
    assert code == 0 and "undo at step 60, layer 3 (training mode, the coming mini-batch)" in out
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


def test_a_probe_of_a_layer_names_the_one_it_looks_at(tmp_path, monkeypatch, capsys):
    trace = recorded(RunStore(tmp_path), ({"depth": 1}, {"norm": "batch", "depth": 1}), steps=2)
    code, out, _ = here(monkeypatch, capsys, "probe", tmp_path, "--step", 0, "--probe", "undo")
    assert code == 0 and "undo at step 0, layer 1 (" in out
    assert trace.look("undo", 1, 0, layer=1) and not trace.look("undo", 1, 0, layer=2)


def test_a_reader_that_has_seen_enough_is_no_error(why_trace):
    probe = command("probe", why_trace.store.directory, "--step", "60", "--probe", "jacobian")
    with subprocess.Popen(probe, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ABOVE) as one:
        one.stdout.close()
        assert one.wait(60) == 0
        assert b"BrokenPipe" not in one.stderr.read()
