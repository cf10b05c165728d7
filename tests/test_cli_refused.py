"""What is wrong with a file or a command is one line on stderr, exit code 2, and nothing is left."""

import os
import subprocess

import pytest
import torch
from command_line import QUIET, TINY, asked, command, here, with_settings

from bnlab.process import ABOVE
from bnlab.store import RunStore

WRONG = [
    (TINY | {"seeds": [" 1"]}, 'seeds are " 1"; allowed are 1 to 8 whole numbers from 0 to 2,147,483,647.'),
    (TINY | {"seeds": [-1]}, "seeds are -1; allowed are 1 to 8 whole numbers from 0 to 2,147,483,647."),
    (TINY | {"arms": [{"changes": {}}]}, "an arm has no label; allowed are 1 to 40 characters."),
    (TINY | {"arms": [{"label": " "}]}, "an arm has a blank label; allowed are 1 to 40 characters."),
    (with_settings(depth="3"), 'depth is "3"; allowed is a whole number from 1 to 100.'),
    (with_settings(steps=1e7), "steps is 10000000.0; allowed is a whole number from 0 to 1,000,000."),
    (with_settings(depht=3), "depht is not a known field; did you mean depth? Known are data, standardize, "),
    (TINY | {"sedes": [1]}, "sedes is not a known field; did you mean seeds? Known are settings, arms, seeds."),
    (with_settings(depth=0), "depth is 0; allowed is a whole number from 1 to 100."),
    (with_settings(depth=101, width=0), "width is 0; allowed is a whole number from 1 to 1,024."),
    (with_settings(activation="relux"), "activation is relux; allowed is one of linear, sigmoid, tanh,"),
    (with_settings(learning_rate="fast"), "learning_rate is fast, which is not a number; allowed is above 0 and"),
    (with_settings(batch_size=143), "batch_size is 143; wine has only 142 training examples."),
    (with_settings(batch_size=1, norm="batch"), "batch_size is 1; batch norm needs at least 2 examples"),
    ('{"settings": {"depth": 1e999}}', "depth is "),
    ('{"settings": {"alpha": NaN}}', ""),
    ('{"settings": ', "this is not valid JSON: EOF while parsing a value at line 1 column 13."),
    ('{"settings": {"depth": 3, "depth": 4}}', "depth appears twice in the same object. Remove one of the two."),
    ("[" * 3000, "this is not valid JSON: recursion limit exceeded"),
    ("[]", 'the experiment is []; allowed is an object such as {"settings": {"depth": 30}, "seeds": [0, 1]}.'),
    ('{"settings": null}', 'settings is null; allowed is an object such as {"depth": 30}.'),
    ('{"arms": [null]}', 'an arm is null; allowed is an object such as {"label": "BN", "changes": {"norm": "batch"}}.'),
    ('{"arms": [{"label": "a", "changes": []}]}', 'changes is []; allowed is an object such as {"norm": "batch"}.'),
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
    (["train", "/dev/zero", "--out", "runs"], "/dev/zero has more than 1 MB, which no experiment needs. Name another"),
    (["train", "{dir}", "--out", "runs"], "Is a directory."),
    (["train", "binary", "--out", "runs"], ""),
    (["train", "good.json", "--out", "binary"], "{dir}/binary: it is a file; name a directory."),
    (["train", "good.json"], "the following arguments are required: --out"),
    (["train", "good.json", "--out", "runs", "--device", "tpu"], "invalid choice: 'tpu'"),
    (["learn"], "invalid choice: 'learn'"),
    ([], "required: command"),
    (["export", "empty", "--to", "csv", "--out", "tables"], "there is no run in {dir}/empty. Train one: "),
    (["export", "nowhere", "--to", "csv", "--out", "tables"], "there is no run in {dir}/nowhere. Train one: "),
    (["export", "fresh", "--to", "csv", "--out", "tables"], "there is no run in {dir}/fresh."),
    (["export", "fresh", "--to", "csv", "--out", "tables", "--run", "x"], "There is no run 'x' here."),
    (["export", "fresh", "--to", "excel", "--out", "tables"], "invalid choice: 'excel'"),
    (
        ["export", "spoilt", "--to", "csv", "--out", "tables"],
        "{dir}/spoilt/runs.sqlite: The file of the runs cannot be used: file is not a database. It ",
    ),
    (
        ["train", "good.json", "--out", "spoilt"],
        "{dir}/spoilt/runs.sqlite: The file of the runs cannot be used: file is not a database. It ",
    ),
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
