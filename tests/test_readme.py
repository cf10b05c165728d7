"""The README tells the truth: its plan is the tree; its file, address, commands and code work; no name is missing."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from bnlab import Experiment, Settings
from bnlab.address import from_query, to_text
from bnlab.export.looks import AXES
from bnlab.problems import allowed, enumeration
from bnlab.record import TABLES
from bnlab.settings import MAX_ARMS, MAX_LABEL, MAX_SEEDS, SHARED, about, limits

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, heading: str) -> str:
    """The first code block in a language below a heading."""
    return re.search(rf"^## {heading}\n.*?^```{language}\n(.*?)^```", README, re.M | re.S)[1]


def test_the_plan_of_the_house_is_the_tree():
    listed, folder = set(), Path()
    for line in block("", "Plan of the house").splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else Path()
        listed.add(str(folder / name))
        folder = Path(name) if name == "bnlab/" else folder
    there = {str(file.relative_to(ROOT)) for place in (ROOT, ROOT / "bnlab") for file in place.glob("*.py")}
    there |= {
        str(file.parent.relative_to(ROOT)) for place in (ROOT, ROOT / "bnlab") for file in place.glob("[!.]*/*.py")
    }
    assert listed >= there - {"bnlab/__init__.py"}, "missing from the plan"
    assert not [name for name in listed if not (ROOT / name).exists()], "in the plan, but not there"


PYTHON = """#!/bin/sh
exec {} -c 'import sys; sys.version_info, sys.version = (3, {}, 1), "3.{}.1 (main)"; exec(sys.argv[2])' "$@"
"""


@pytest.mark.parametrize(("minor", "fits"), [(10, False), (11, True), (14, True), (15, False)])
def test_make_takes_the_pythons_that_the_readme_names_and_refuses_others_in_a_sentence(tmp_path, minor, fits):
    assert "You need Python 3.11 to 3.14 and `make`." in README
    (python := tmp_path / "python").write_text(PYTHON.format(sys.executable, minor, minor))
    python.chmod(0o755)
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # not as its child
    make = ["make", "run", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", "TORCH_INDEX="]
    done = subprocess.run(make, cwd=ROOT, env=alone, capture_output=True, text=True)
    sentence = f"Python is 3.{minor}.1; the lab needs 3.11 to 3.14. Say where it is: make PYTHON=...\n"
    assert done.stderr.startswith(sentence) != fits and done.stdout.startswith("Installing into") == fits


def test_every_setting_and_each_of_its_choices_is_named():
    for name in Settings.model_fields:
        assert f"`{name}`" in README
        for choice in about(name).choices or ():
            assert f"`{choice}`" in README, name


def test_the_table_of_settings_has_their_defaults_and_limits_and_the_lines_below_it_those_of_arms_and_seeds():
    def told(name: str) -> str:
        span = f" ({allowed(name).removeprefix('a whole number from ')})" if limits(name)[0] is not None else ""
        return f"`{to_text(Settings.model_fields[name].default)}`{span}"

    table = re.search(r"^\| field \| default .*?\n\n", README, re.M | re.S)[0].splitlines()[2:-1]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table]
    names = [re.findall("`(.+?)`", fields) for fields, _ in rows]
    assert sorted(name for of in names for name in of) == sorted(Settings.model_fields)
    assert [said for _, said in rows] == [", ".join(map(told, of)) for of in names]
    assert f"1 to {MAX_ARMS} arms, each with a label of its own of 1 to {MAX_LABEL} characters" in README
    assert f"1 to {MAX_SEEDS} seeds from 0 to {2**31 - 1:,};" in README
    assert f"all arms share {enumeration([f'`{name}`' for name in SHARED])}." in README


def test_every_column_of_the_probes_is_named():
    columns = {column for axes in AXES.values() for of in axes.values() for column, _ in of}
    assert not [name for name in columns if f"`{name}`" not in README]


def test_every_recorded_column_is_named():
    names = {name for table in ("steps", "layers", "units") for name in TABLES[table]}
    assert not [name for name in names if f"`{name}`" not in README]


def test_links_lead_to_files():
    inside = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert not [link for link in inside if not (ROOT / link).is_file()]


def test_the_address_opens_an_experiment():
    query = re.search(r"`\?(depth=[^`]+)`", README)[1]
    experiment = from_query(parse_qsl(query))
    assert [arm.label for arm in experiment.arms] == ["no norm", "BN before"]
    assert experiment.settings.depth == 30


def test_the_python_lines_run(capsys):
    exec(block("python", "Commands"), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("20 [")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_experiment_file_and_the_commands_work(kind, tmp_path):
    file = block("json", "The experiment file")
    asked = Experiment.model_validate_json(file)
    short = file.replace('"steps": 500', '"steps": 3').replace("[0, 1, 2]", "[0]")
    assert short.count('"steps": 3}') == 1
    assert asked.settings.steps == 500
    (tmp_path / "FILE.json").write_text(short)
    for line in block("sh", "Commands").splitlines():
        words = line.partition("#")[0].replace("csv|parquet", kind).replace("[--device auto|cpu|cuda]", "").split()
        assert words[:3] == ["python", "-m", "bnlab"]
        places = [str(tmp_path / word) if word in ("FILE.json", "DIR", "DIR2") else word for word in words[3:]]
        done = subprocess.run([sys.executable, "-m", "bnlab", *places], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "DIR2").iterdir()}
    assert written == {f"{table}.{kind}" for table in ("steps", "layers", "units", "scores", "population")}
