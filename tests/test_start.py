"""What is wrong when the server starts is one sentence in its terminal: what it is, and what to do."""

import asyncio
import errno
import os
import pty
import sqlite3
import subprocess
import sys

import pytest
from command_line import QUIET
from streamlit.runtime.scriptrunner import magic
from streamlit.runtime.scriptrunner.script_cache import ScriptCache

import app
from bnlab import database, opened
from bnlab.process import ABOVE
from bnlab.store import RunStore

WORKERS = "BNLAB_WORKERS is {}; allowed is a whole number from 0 to 1,024."
HOSTS = (
    "BNLAB_HOSTS has {}; allowed are names and addresses without http:// and port, and commas between them: "
    "room,192.168.0.7."
)
UNUSABLE = (
    "{}: The file of the runs cannot be used: {}. It may be gone, damaged, read-only or on a full disk. Put it right, "
    "then start again."
)


def started():
    async def once():
        async with app.workers(app.app):
            pass

    asyncio.run(once())


@pytest.fixture
def refused(lab, monkeypatch, capsys):
    """Start the server, which is to end at once; what stands in its terminal then."""

    def start(of=started, **environment):
        opened.close()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as end:
            patched.setattr(os, "_exit", sys.exit)
            patched.setattr(app, "answer_at_once", lambda: None)  # asyncio stays as it is
            of()
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix("The lab cannot start: ")

    return start


@pytest.mark.parametrize("told", ["abc", "-1", "1.5", "1025", "9" * 5000])
def test_a_number_of_workers_that_is_none_is_refused_and_nothing_is_made(refused, told, tmp_path):
    assert refused(BNLAB_WORKERS=told, BNLAB_STORE=str(tmp_path / "new")) == WORKERS.format(told[:40])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["http://room", "room:8501", "ro*m", "[::1]"])
def test_a_name_by_which_nobody_ever_asks_is_refused(refused, name, monkeypatch):
    """With a star in it the server ended in a traceback; by the others it answered nobody."""

    def asked():
        with app.startable():
            opened.hosts()

    assert refused(asked, BNLAB_HOSTS=f"room,{name}") == HOSTS.format(name)


def test_names_are_those_that_browsers_send_and_an_empty_variable_says_nothing(monkeypatch):
    monkeypatch.setenv("BNLAB_HOSTS", " Room, 192.168.0.7,,*.School.example")
    assert opened.hosts() == ["room", "192.168.0.7", "*.school.example"]
    monkeypatch.setenv("BNLAB_STORE", "")
    assert str(opened.directory()) == "runs"
    for told, size in (("", os.cpu_count()), (" ", os.cpu_count()), ("3 ", 3), ("0", 0)):  # Windows keeps the blank
        monkeypatch.setenv("BNLAB_WORKERS", told)
        assert opened.workers() == size


def test_a_damaged_file_of_runs_is_named(refused, tmp_path):
    (file := tmp_path / "damaged" / "runs.sqlite").parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    assert refused(BNLAB_STORE=str(file.parent)) == UNUSABLE.format(file, "file is not a database")


def test_a_file_of_runs_that_cannot_be_written_is_named(refused, monkeypatch, tmp_path):
    """As root everything can be; SQLite itself can be told not to."""
    connect = sqlite3.connect

    def read_only(path, **more):
        return connect(f"file:{path}?mode=ro", uri=True, **more)

    RunStore(tmp_path).db.execute("drop table forks")  # one that is missing is made
    monkeypatch.setattr("bnlab.database.sqlite3.connect", read_only)
    assert refused() == UNUSABLE.format(tmp_path / "runs.sqlite", "attempt to write a readonly database")


def test_a_file_of_runs_that_another_process_locks_is_named(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(database, "PATIENCE", 50)
    other = RunStore(tmp_path)
    other.db.execute("drop table forks")
    with other.transaction():
        assert refused() == f"{tmp_path / 'runs.sqlite'}: {database.BUSY}"


def test_a_store_that_is_a_file_is_named(refused, tmp_path):
    (tmp_path / "file").touch()
    said = refused(BNLAB_STORE=str(tmp_path / "file"))
    assert said == f"{tmp_path / 'file'}: it is a file; name a directory."


def test_where_the_example_cannot_be_copied_its_place_is_named(refused, monkeypatch, tmp_path):
    """The server came up, and no page could be drawn."""

    def full(shipped, copy):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(shipped), None, str(copy))

    monkeypatch.setattr("bnlab.opened.shutil.copyfile", full)
    said = refused()
    assert said.startswith(str(tmp_path / "example" / "runs.sqlite")) and said.endswith(": No space left on device.")


def test_the_server_itself_ends_with_exit_code_2_and_no_traceback(tmp_path):
    server = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", "--server.port=0"]
    environment = QUIET | {"BNLAB_WORKERS": "abc", "BNLAB_STORE": str(tmp_path)}
    done = subprocess.run(server, cwd=ABOVE, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == f"The lab cannot start: {WORKERS.format('abc')}"


def test_on_a_desktop_the_first_start_asks_for_nothing(tmp_path):
    """Streamlit asked for an e-mail address, and served nobody until Enter was pressed."""
    server = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=false", "--server.port=0"]
    fresh = {"HOME": str(tmp_path), "BROWSER": "true", "BNLAB_WORKERS": "0", "BNLAB_STORE": str(tmp_path / "runs")}
    terminal, its = pty.openpty()
    with subprocess.Popen(server, cwd=ABOVE, env=QUIET | fresh, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)  # so that reading ends with the server
        said = ""
        while "URL:" not in said and "Email:" not in said:
            said += os.read(terminal, 1000).decode(errors="replace")
        process.terminate()
    os.close(terminal)
    assert "URL:" in said


def test_a_page_is_compiled_as_it_is_written(monkeypatch):
    """Streamlit's magic takes it to a tree first, at which Python up to 3.11.7 fails now and then where two threads do:
    python/cpython#106905."""
    monkeypatch.setattr(magic, "add_magic", None)
    assert ScriptCache().get_bytecode(os.path.join(ABOVE, "pages", "lab.py"))
