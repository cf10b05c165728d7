"""The command line, run for real or in this process."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd

from bnlab.__main__ import main
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


def with_settings(**changes):
    return TINY | {"settings": TINY["settings"] | changes}


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
