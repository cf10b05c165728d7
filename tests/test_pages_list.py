"""The page Runs: all there are, followed, stopped, renamed, exported and deleted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab_page import button, chooser, drawn, errors, page, widget
from lab_page import opened as another

from bnlab import cards, opened
from bnlab.__main__ import read
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment
from bnlab.export import asked
from bnlab.process import ABOVE
from bnlab.run import Taken, run_in
from bnlab.settings import Settings
from pages.parts.views import INFERENCE

pytestmark = pytest.mark.usefixtures("lab")


def test_the_list_of_runs_stops_those_that_are_under_way_or_paused_as_the_lab_does():
    store = opened.store()
    left = ("queued", "paused", "done", "stopped", "diverged", "failed", "interrupted")
    runs = {status: store.create(Experiment(settings=Settings(depth=3))).id for status in left}
    for status, run_id in runs.items():
        store.change(run_id, status=status)
    opened.jobs().start(runs["queued"])
    at = another("runs.py")
    there = [b.key for b in at.button if b.key.startswith("stop-")]
    assert sorted(there) == sorted(f"stop-{runs[status]}" for status in ("queued", "paused"))
    theirs = button(page(("run", runs["queued"])), "stop")
    for key in there:
        own = button(at, key)
        assert (own.label, own.icon, own.help, own.proto.shortcut) == (theirs.label, theirs.icon, theirs.help, "")
        assert not own.disabled and not theirs.disabled
        drawn(own.click())
    assert {store.run(runs[status]).status for status in ("queued", "paused")} == {"stopped"}
    assert not opened.jobs().holds(runs["queued"]) and not [b for b in at.button if b.key.startswith("stop-")]


def test_what_keeps_a_run_from_being_stopped_is_said_in_the_list_of_all():
    run = opened.store().create(Experiment(settings=Settings(depth=3)))
    opened.store().change(run.id, status="running")  # by a process that is not this server's
    at = drawn(button(another("runs.py"), f"stop-{run.id}").click())
    assert errors(at) == "R" + str(Taken(run.id))[1:] and opened.store().run(run.id).status == "running"


def test_a_run_that_is_still_at_its_last_step_is_stopping(monkeypatch):
    run = opened.store().create(Experiment(settings=Settings(depth=3)))
    monkeypatch.setattr(opened.jobs(), "stopping", {run.id})
    told = lambda: [text.value.partition(",")[0] for text in another("runs.py").caption]  # noqa: E731
    assert told() == ["Stopping"]
    opened.store().change(run.id, status="stopped")
    assert told()[0] == "Stopped", "while it is scored"


def test_the_list_of_runs_calls_a_status_as_the_board_does():
    store = opened.store()
    states = ("queued", "running", "paused", "done", "stopped", "diverged", "failed", "interrupted")
    for status in states:
        store.change(store.create(Experiment(settings=Settings(depth=3))).id, status=status)
    told = [text.value.partition(",")[0] for text in another("runs.py").caption if " arms, " in text.value]
    assert told == [re.match(r"\w+", cards.words(run, 0))[0] for run in store.runs()]
    assert told[-2:] == ["Training", "Waiting"]


def test_runs_of_one_name_are_told_apart_in_the_list_of_all():
    store = opened.store()
    runs = [store.create(Experiment(), name="twin") for _ in range(3)]
    for run, when in zip(runs, (0, 0, 3600), strict=True):  # 1970, two of them in the same second
        store.db.execute("update runs set created = ? where id = ?", (when, run.id))
    at = page()
    at.switch_page("runs.py")
    drawn(at)
    titles = [text.value.replace("\\", "").replace("\u2060", "") for text in at.header if "twin" in text.value]
    assert len(set(titles)) == 3 and all(" · **twin" in title for title in titles)
    assert titles[0].startswith(f"{store.run(runs[2].id).created:%b %d 1970, %H:%M:%S}")


def test_however_many_runs_there_are_a_page_reads_those_it_shows(monkeypatch):
    store, read = opened.store(), set()
    newest = [store.create(Experiment(), name=f"run {i}").id for i in range(45)][::-1]
    for run_id in newest:
        store.change(run_id, status="done")
    monkeypatch.setattr("bnlab.store.run_in", lambda row: (read.add(row[0]), run_in(row))[1])
    at = page()
    example = opened.example_run().id
    assert read == {*newest[:30], example} and len(chooser(at).options) == 31
    at.switch_page("runs.py")
    drawn(at)
    for number, shown in ((1, newest[:20]), (2, newest[20:40]), (3, newest[40:])):
        at.session_state["page"] = number
        read.clear()
        drawn(at)
        assert read <= {*shown, example}
        assert [box.key for box in at.text_input] == [f"name-{run_id}" for run_id in shown]


def test_runs_are_renamed_opened_and_deleted():
    store = opened.store()
    run = store.create(Experiment(settings=Settings(depth=9)), name="first")
    at = page()
    at.switch_page("runs.py")
    drawn(at)
    at.session_state[f"rename-{run.id}"] = True
    drawn(at.text_input(key=f"name-{run.id}").set_value("[second](x)"))
    assert store.run(run.id).name == "[second](x)"
    assert at.session_state[f"rename-{run.id}"] is False, "the box is shut"
    drawn(button(at, f"open-{run.id}").click())
    assert widget(at, "depth").value == 9
    store.change(run.id, status="stopped")
    at.switch_page("runs.py")
    drawn(at)
    assert [text.value for text in at.text] == ["[second](x)\n\nIts 0 recorded steps will be gone for good."]
    assert button(at, f"delete-{run.id}").proto.type == "secondary", "Train is the one that stands out"
    drawn(button(at, f"delete-{run.id}").click())
    assert not store.runs()


def test_a_run_s_id_its_experiment_file_and_the_command_for_its_tables_are_in_its_row(tmp_path, monkeypatch):
    store = opened.store()
    run = store.create(Experiment(settings=Settings(depth=2, width=4, steps=3)))
    execute(store, run.id, lambda: None)
    at = another("runs.py")
    assert not at.code, "made only while they are open"
    at.session_state[f"export-{run.id}"] = True
    drawn(at)
    run_id, line = (code.value for code in at.code)
    assert run_id == run.id
    assert line.endswith(f" --out tables-{run.id}")
    assert str(opened.directory()) not in line, "a visitor is not told where it is"
    line = line.replace(" DIR ", f" {opened.directory()} ").replace("tables-", f"{tmp_path}/tables-")
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(line, shell=True, cwd=ABOVE, check=True, env={**os.environ, "PATH": path})
    monkeypatch.setenv("BNLAB_STORE", "runs")
    assert " export runs --run " in asked.command(run, opened.directory()), "as it is by default"
    monkeypatch.chdir(tmp_path)
    for elsewhere in ("../secret", "runs/../../secret", tmp_path / "runs"):
        assert " export DIR --run " in asked.command(run, Path(elsewhere)), "seen from the lab's own directory"
    assert (tmp_path / f"tables-{run.id}" / "steps.csv").exists()
    (file,) = at.get("download_button")
    assert file.proto.label == "Experiment file" and "a fork begins" not in file.proto.help
    (tmp_path / "asked.json").write_text(asked.file(run), encoding="utf-8")
    assert read(tmp_path / "asked.json") == run.experiment


def test_where_a_run_is_forked_its_file_is_told_to_begin_anew():
    store = opened.store()
    parent = store.create(Experiment(settings=Settings(depth=3)))
    store.db.execute("insert into snapshots values (?, 0, 50, x'00')", (parent.id,))
    fork = store.fork(parent.id, 1, 50, {"learning_rate": 0.5})
    at = another("runs.py")
    at.session_state[f"export-{fork.id}"] = True
    (file,) = drawn(at).get("download_button")
    assert file.proto.help.endswith("a fork begins at step 0, not from the weights it was forked from.")


def test_to_delete_a_fork_is_told_to_lose_its_own_steps_not_its_parents():
    store = opened.store()
    parent = store.create(Experiment(settings=Settings(depth=2, width=4, steps=9)))
    execute(store, parent.id, lambda: None)
    fork = store.fork(parent.id, 0, 9, {"learning_rate": 0.01}, 3)
    execute(store, fork.id, lambda: None)
    at = page()
    at.switch_page("runs.py")
    drawn(at)
    told = [text.value.splitlines()[-1] for text in at.text]
    assert told == [f"Its {steps} recorded steps will be gone for good." for steps in (3, 9)]


def test_who_deletes_a_run_is_told_what_its_forks_lose():
    store = opened.store()
    arms = (Arm(label="BN", changes={"norm": "batch"}),)
    run = store.create(Experiment(settings=Settings(depth=2, width=4, steps=9), arms=arms))
    execute(store, run.id, lambda: None)
    said = ("1 fork loses steps before its own; its charts", "2 forks lose steps before their own; their charts")
    for losing, alpha in zip(said, (0.5, 0.7), strict=True):
        run = store.fork(run.id, 0, store.run(run.id).made, {"alpha": alpha}, 3)
        execute(store, run.id, lambda: None)
        *_, told = [text.value.partition("for good.\n\n")[2] for text in another("runs.py").text]
        assert told == f'{losing} under "Any alpha" and "Why they are off" need every step from the first.'
    assert {"Any alpha", "Why they are off"} <= INFERENCE.keys()
