"""The house stands: imports only go down, and the process that shows pages loads no torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLAN = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Plan of the house\n")[2].partition("\n## ")[0]
FLOOR = {  # from the cellar up; a package stands for all files in it
    name: floor.lower() for name, floor in re.findall(r"^ *(\w+)(?:\.py|/) +([A-Z]+(?: DOOR)?)  ", PLAN, re.M)
}
HEIGHT = {name: height for height, name in enumerate(FLOOR) if name != "plotly"}  # imported is the library
UPWARD = {("store", "keeping"), ("store", "reading")}  # whoever has the store asks it for a run's writer and its trace
DISK = {"sqlite3", "pathlib", "os", "shutil", "tempfile", "open"}
NEVER = {  # what else a floor, or one thing on it, may not use
    "cellar": {*DISK, "numpy", "torch", "streamlit", "plotly"},
    "ground": {*DISK, "streamlit", "plotly"},
    "first": {*DISK, "streamlit", "plotly"},
    "second": {"streamlit", "plotly"},
    "third": {"streamlit", "torch"},
    "side door": {"streamlit"},
    "roof": {"torch", "sqlite3"},
    "front door": {"torch", "sqlite3"},
    "figures": {*DISK, *(name for name, floor in FLOOR.items() if floor == "second")} - {"run", "lineage"},
}
ALSO = {"ctrl_c": {"os"}}  # what one may use all the same: it ends the process
FILES = [f for part in ("bnlab", "pages", "app.py") for f in sorted([ROOT / part, *(ROOT / part).rglob("*.py")])]
FILES = [f for f in FILES if f.is_file() and f != ROOT / "bnlab" / "__init__.py"]


def thing(module: str) -> str:
    """What a module belongs to: bnlab.figures.style -> figures, pages.lab -> pages, numpy.linalg -> numpy."""
    parts = module.split(".")
    return parts[1] if parts[0] == "bnlab" and len(parts) > 1 else parts[0]


def used(file: Path) -> set[str]:
    """What a file imports when its code runs, and `open` where it calls that; not what only type checkers read."""
    here = file.relative_to(ROOT).parent.parts
    found, left = set(), [ast.parse(file.read_text(encoding="utf-8"))]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left += node.orelse
            continue
        left += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {thing(name.name) for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            found |= {thing(f"{module}.{name.name}" if module == "bnlab" else module) for name in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "open":
            found.add("open")
    return found


def own(file: Path) -> str:
    return thing(".".join(file.relative_to(ROOT).with_suffix("").parts))


def test_every_name_on_a_floor_is_there():
    assert FLOOR.keys() - {"plotly"} == {own(file) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_only_go_down(file):
    name = own(file)
    assert name in FLOOR, f"{name} has no place yet: give it one in the README's plan."
    higher = {other for other in used(file) & HEIGHT.keys() if HEIGHT[other] > HEIGHT[name]}
    higher -= {other for one, other in UPWARD if one == name}
    assert not higher, f"{name} ({FLOOR[name]}) imports {higher}, which come after it in the README's plan."
    wrong = used(file) & (NEVER[FLOOR[name]] | NEVER.get(name, set())) - ALSO.get(name, set())
    assert not wrong, f"{name} ({FLOOR[name]}) uses {wrong}, which belong elsewhere."


def named(file: Path) -> set[str]:
    """Attributes, imported names and named arguments as its code writes them; not what docstrings say."""
    nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    found = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    found |= {node.name for node in nodes if isinstance(node, ast.alias)}
    return found | {node.arg for node in nodes if isinstance(node, ast.keyword)}


def test_only_the_session_touches_streamlits_state():
    state = {f"{of}{what}" for of in ("st.", "streamlit.", "") for what in ("session_state", "query_params")}
    assert [f.relative_to(ROOT).as_posix() for f in FILES if named(f) & state] == ["pages/parts/session.py"]


def test_nobody_shows_words_as_html():
    assert not [f.name for f in FILES if "unsafe_allow_html" in named(f)]
    calls = [(f.name, n) for f in FILES for n in ast.walk(ast.parse(f.read_text("utf-8"))) if isinstance(n, ast.Call)]
    shown = [(name, n) for name, n in calls if ast.unparse(n.func).rpartition(".")[2] in ("markdown", "caption")]
    assert shown and not [name for name, n in shown if len(n.args) > 1], "it may stand second without its name"


def test_the_process_that_shows_pages_loads_no_torch():
    shown = [f for f in FILES if FLOOR.get(own(f)) in ("ground", "first", "second", "third") and own(f) != "work"]
    modules = [".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in shown]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name + ' imports torch'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
