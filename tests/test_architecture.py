"""The house stands: imports only go down, and the process that shows pages loads no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {  # from the cellar up; a package stands for all files in it
    "cellar": "registry ctrl_c",
    "ground": "device memory activations inits norms normalization noise optimizers data "
    "averages theory profile moving mlp population",
    "first": "frozen settings problems experiment address sampling "
    "state stack fork record quantities group train probes",
    "second": "database summary budget run store chunks keeping scorings reading lineage "
    "looking executing work process looker jobs",
    "third": "figures export cards opened api files connections console",
    "side door": "__main__",
    "roof": "app pages",
}
FLOORS = {floor: names.split() for floor, names in FLOORS.items()}
DISK = {"sqlite3", "pathlib", "os", "shutil", "tempfile", "open"}
NEVER = {  # what else a floor, or one thing on it, may not use
    "cellar": {*DISK, "numpy", "torch", "streamlit", "plotly"},
    "ground": {*DISK, "streamlit", "plotly"},
    "first": {*DISK, "streamlit", "plotly"},
    "second": {"streamlit", "plotly"},
    "third": {"streamlit", "torch"},
    "side door": {"streamlit"},
    "roof": {"torch", "sqlite3"},
    "figures": {*DISK, *FLOORS["second"]} - {"run", "lineage"},
}
ALSO = {"ctrl_c": {"os"}}  # what one may use all the same: it ends the process
HEIGHT = {name: height for height, names in enumerate(FLOORS.values()) for name in names}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
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
    assert FLOOR.keys() == {own(file) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_only_go_down(file):
    name = own(file)
    assert name in FLOOR, f"{name} has no floor yet: give it one at the top of this test and in the README's plan."
    higher = {other for other in used(file) & HEIGHT.keys() if HEIGHT[other] > HEIGHT[name]}
    assert not higher, f"{name} ({FLOOR[name]}) imports {higher}, which stand above it."
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
