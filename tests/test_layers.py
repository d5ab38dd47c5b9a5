"""Imports point down: the order of the rooms, enforced."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "arena"

# Each room may import those before it (and itself, where marked in SAME).
ORDER = [
    {"fields", "chance", "checksums", "files", "modules", "seal"},
    {"declaration", "identity", "executors"},
    {"store"},
    {"ledger", "record"},
    {"knowledge", "schema", "solvers", "estimate"},
    {"core"},
    {"classification"},
    {"actions", "costs", "transformations", "data"},
    {"learners"},
    {"training"},
    {"attacks", "certificates"},
    {"defenses"},
    {"games"},
    {"arena"},
    {"events"},
    {"log"},
    {"empirical"},
    {"report"},
    {"studies"},
    {"__main__", "__init__"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "arena":
            yield from (f"arena.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("arena."):
            yield node.module
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("arena"))


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def own_room(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def test_every_room_has_its_place():
    assert {own_room(path) for path in ROOT.rglob("*.py")} == set(LEVEL)


def test_imports_point_down():
    wrong = []
    for path in ROOT.rglob("*.py"):
        own = own_room(path)
        if path.name == "__init__.py" and path.parent != ROOT:
            continue
        for module in imports(path):
            other = room(module)
            if other != own and LEVEL[other] >= LEVEL[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_room_inits_import_nothing():
    for path in ROOT.glob("*/__init__.py"):
        tree = ast.parse(path.read_text())
        assert len(tree.body) == 1, f"{path} holds more than a docstring"


def test_solvers_know_arrays_only():
    found = set()
    for path in (ROOT / "solvers").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    outside = {name for name in found if not name.startswith("arena.solvers.")}
    known = sys.stdlib_module_names | {"numpy", "scipy", "networkx"}
    assert {name.split(".")[0] for name in outside} <= known


def test_protocols_that_isinstance_asks_declare_methods_alone():
    """From Python 3.12 on it looks statically, and finds no child and no buffer of a module."""
    found = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(
                "runtime_checkable" in ast.unparse(mark) for mark in node.decorator_list
            ):
                found.append(node.name)
                assert not any(isinstance(line, ast.AnnAssign) for line in node.body), node.name
                methods = [line for line in node.body if isinstance(line, ast.FunctionDef)]
                assert not any(method.decorator_list for method in methods), node.name
    assert "Random" in found
