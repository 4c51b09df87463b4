"""The plan of the house: which file may import which, and what lies where."""

import ast
import dataclasses
import subprocess
import sys

import pytest
from conftest import ROOT

from nerve import records

# Each floor may import those before it, and modules of its own room.
FLOORS = (
    ("command", "machine", "backend", "precision"),
    ("files",),
    ("records",),
    ("scoring",),
    ("frames",),
    ("prediction",),
    ("training",),
)
BESIDE = {"phantom": ("files", "machine")}  # a room of its own, and what it may import
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
MODULES = sorted((ROOT / "nerve").rglob("*.py"))
HELD = {  # by dataclasses; words that tables of scores and frames use too are left out
    field.name
    for kind in (records.Inputs, records.Limits, records.Recipe, records.Trained)
    for field in dataclasses.fields(kind)
} - {"name", "loss", "height", "width", "epochs", "seed"}


def read_imports(path):
    """Return `{dotted name of a module: line}` of all imports, also inside functions."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # `from nerve.files import atomic` names a module, as may any other
            found |= {f"{node.module}.{alias.name}": node.lineno for alias in node.names}
    return found


def room_of(dotted):
    """Return the room, or the module that lies beside the rooms, of `nerve.x.y`."""
    return dotted.split(".")[1]


def floor_of(room):
    """Return the number of a room's floor."""
    return next(k for k, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_in_nerve_imports_a_script(path):
    imported = {name.split(".")[0] for name in read_imports(path)}
    assert not imported & set(SCRIPTS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_rooms_are_floors_and_no_arrow_goes_up(path):
    parts = path.relative_to(ROOT / "nerve").with_suffix("").parts
    mine = parts[0]
    for name, line in read_imports(path).items():
        if not name.startswith("nerve.") or room_of(name) == mine:
            continue
        other, where = room_of(name), f"{path}:{line} imports {name}"
        if mine in BESIDE:
            assert other in BESIDE[mine], where
        else:
            assert other not in BESIDE, where
            assert floor_of(other) <= floor_of(mine), where


def test_no_imports_go_in_a_circle():
    arrows = {}
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in MODULES}
    for name, path in names.items():
        imported = read_imports(path)
        arrows[name] = {
            target
            for target in names
            for found in imported
            if found.startswith(target + ".")
        } | (set(imported) & set(names))
        arrows[name] -= {name, *(n for n in names if n.endswith("__init__"))}

    def walk(name, way):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        for other in arrows[name]:
            walk(other, [*way, name])

    for name in names:
        walk(name, [])


def test_the_top_is_what_a_person_runs_or_edits():
    assert len(SCRIPTS) <= 14
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    assert len({name.split("/")[0] for name in listed}) <= 30
    for room in {path.parent for path in MODULES}:
        assert len(list(room.glob("*.py"))) > 2 or room.name == "nerve", room


@pytest.mark.parametrize(
    "path",
    [*MODULES, *(ROOT / f"{name}.py" for name in SCRIPTS)],
    ids=lambda path: path.stem,
)
def test_what_a_dataclass_holds_is_not_looked_up_by_a_string(path):
    if path.name == "records.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            assert node.slice.value not in HELD, f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "path",
    [*MODULES, *(ROOT / f"{name}.py" for name in SCRIPTS)],
    ids=lambda path: path.stem,
)
def test_keras_comes_by_the_backend_which_settles_what_it_starts_with(path):
    if path.name != "backend.py":
        assert not [n for n in read_imports(path) if n.split(".")[0] == "keras"]


def test_keras_is_imported_without_what_is_not_used_which_can_be_imported_after():
    code = """
import sys
from nerve import backend
print(sorted(set(backend.UNUSED) & set(sys.modules)))
import matplotlib.pyplot
"""
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
