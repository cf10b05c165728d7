"""The shipped example, which is there before the first click."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_page import chooser, page

from bnlab import opened
from bnlab.experiment import Experiment

pytestmark = pytest.mark.usefixtures("lab")


def test_the_shipped_example_is_shown_before_the_first_click():
    at = page()
    assert not at.info
    example = opened.example_run()
    assert chooser(at).value == example.id
    assert example.experiment == Experiment(), "make it again: docs/example.py"
    assert example.status == "done"


def test_an_older_copy_of_the_example_gives_way(tmp_path):
    example = opened.example_run()
    opened.example().delete(example.id)
    copy = tmp_path / "example" / opened.FILE
    os.utime(copy, (0, 0))
    opened.close()
    assert opened.example_run() == example


def test_first_visitors_who_come_side_by_side_all_see_the_example(tmp_path, monkeypatch):
    def slowly(shipped, to):
        """A copy that others can meet half-written."""
        data = Path(shipped).read_bytes()
        with open(to, "wb") as file:
            for part in (data[:4096], data[4096:]):
                file.write(part)
                file.flush()
                time.sleep(0.1)

    monkeypatch.setattr(opened.shutil, "copyfile", slowly)

    def visitor(i):
        time.sleep(0.05 * i)
        return opened.example_run()

    with ThreadPoolExecutor(4) as threads:
        runs = list(threads.map(visitor, range(4)))
    assert [run.status for run in runs] == ["done"] * 4 and len({run.id for run in runs}) == 1
    opened.close()
    assert opened.example_run() == runs[0]
    assert {path.name.partition("-")[0] for path in (tmp_path / "example").iterdir()} == {opened.FILE}


def test_a_copy_of_the_example_that_could_not_be_finished_does_not_count(tmp_path, monkeypatch):
    def cut(shipped, to):
        Path(to).write_bytes(Path(shipped).read_bytes()[:4096])
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(opened.shutil, "copyfile", cut)
        with pytest.raises(OSError, match="No space left"):
            opened.example()
    assert not [*(tmp_path / "example").iterdir()]
    assert opened.example_run().status == "done"


def test_of_a_read_only_example_there_is_a_copy_that_can_be_written(tmp_path, monkeypatch):
    """As on a read-only share; as root everything can be written, so its mode is asked."""
    shipped = tmp_path / "shipped" / opened.FILE
    shipped.parent.mkdir()
    shipped.write_bytes((opened.EXAMPLE / opened.FILE).read_bytes())
    shipped.chmod(0o444)
    monkeypatch.setattr(opened, "EXAMPLE", shipped.parent)
    assert opened.example_run().status == "done"
    assert (tmp_path / "example" / opened.FILE).stat().st_mode & 0o200


def test_where_an_older_copy_of_the_example_is_held_it_serves(tmp_path, monkeypatch):
    """On Windows a file that another server has open cannot be replaced, and the second one did not start."""
    example = opened.example_run()
    copy = tmp_path / "example" / opened.FILE
    os.utime(copy, (0, 0))
    opened.close()

    def held(_, to):
        raise PermissionError(13, "Access is denied", str(to))

    monkeypatch.setattr(opened.os, "replace", held)
    assert opened.example_run() == example and copy.stat().st_mtime == 0
    assert not [*copy.parent.glob(f"{opened.FILE}.*")]
    opened.close()
    copy.unlink()
    with pytest.raises(PermissionError):
        opened.example()
