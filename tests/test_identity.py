"""What a result is kept under: the code that made it, all of it, and nothing else."""

import ast
import functools
import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import LINEAR

import arena
from arena import modules
from arena.attacks.pgd import PGD
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.identity import code, sources
from arena.modules import UNKNOWN

MINE = {
    "mine/__init__.py": "",
    "mine/strategy.py": """
from dataclasses import dataclass
from typing import TYPE_CHECKING
from arena.defenses.erm import ERM
from . import losses
from .settings import SCALE as scale
if TYPE_CHECKING:
    from mine import types
else:
    import mine.checked

@dataclass(frozen=True)
class Mine(ERM):
    def loss(self, module, step):
        from mine.late import late
        try:
            import mine_elsewhere
        except ImportError:
            import there_is_no_such_module
        return losses.loss(module, step)
""",
    "mine/losses.py": "import mine.deep.er\ndef loss(module, step):\n    return 0.0\n",
    "mine/deep/er.py": "DEEP = 1\n",  # a folder without an __init__
    "mine/settings.py": "SCALE = 1\n",
    "mine/late.py": "def late(): ...\n",
    "mine/checked.py": "",
    "mine/types.py": "",
    "mine/unrelated.py": "",
    "mine_elsewhere.py": "from mine import *\n",
}
USED = {
    "mine/__init__.py",
    "mine/strategy.py",
    "mine/losses.py",
    "mine/deep/er.py",
    "mine/settings.py",
    "mine/late.py",
    "mine/checked.py",
    "mine_elsewhere.py",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's package; gives its folder and its strategy, which is loaded."""
    for name, content in MINE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    strategy = importlib.import_module("mine.strategy").Mine(LINEAR)
    yield tmp_path, strategy
    for name in [name for name in sys.modules if name.startswith("mine")]:
        del sys.modules[name]


def test_the_code_is_what_the_classes_import(mine):
    found = sources([mine[1]])
    assert {name for name in found if name.startswith("mine")} == USED
    assert {"arena/defenses/erm.py", "arena/training/trainer.py", "arena/core.py"} <= set(found)
    assert found["torch"] == importlib.metadata.version("torch")


@pytest.mark.parametrize("name", sorted(MINE))
def test_an_edit_counts_if_the_file_is_used(mine, name):
    """Among them a loss in a module that the strategy imports."""
    folder, strategy = mine
    before, whole = sources([strategy]), code([strategy])
    with open(folder / name, "a") as file:
        file.write("\nADDED = 1\n")
    for loaded in [each for key, each in sys.modules.items() if key.startswith("mine")]:
        importlib.reload(loaded)
    after = sources([strategy])
    assert {each for each in after if after[each] != before.get(each)} == {name} & USED
    assert (code([strategy]) != whole) == (name in USED)


def test_a_process_has_the_code_that_it_loaded(mine):
    """It goes on with that, whatever is written to the file meanwhile."""
    folder, strategy = mine
    before = code([strategy])
    (folder / "mine" / "losses.py").write_text("def loss(module, step):\n    return 1.0\n")
    assert code([strategy]) == before
    importlib.reload(sys.modules["mine.losses"])
    assert code([strategy]) != before


def test_comments_docstrings_and_layout_do_not_count(mine):
    folder, strategy = mine
    before = code([strategy])
    losses = folder / "mine" / "losses.py"
    losses.write_text(
        '"""Losses of mine."""\n\nimport mine.deep.er  # for its depth\n\n\n'
        'def loss(module, step):\n    """None."""\n\n    return (  # yet\n        0.0\n    )\n'
    )
    importlib.reload(sys.modules["mine.losses"])
    assert code([strategy]) == before


def test_no_training_counts_the_attacks_that_it_does_not_play():
    plain, attacked = sources([ERM(LINEAR)]), sources([AdversarialTraining(LINEAR, inner=PGD())])
    assert not any(name.startswith(("arena/attacks", "arena/studies")) for name in plain)
    assert set(plain) - set(attacked) == {"arena/defenses/erm.py"}
    attacks = {n for n in attacked if n.startswith("arena/attacks/") and n.count("/") == 2}
    assert attacks == {"arena/attacks/__init__.py", "arena/attacks/pgd.py"}


def test_code_does_not_depend_on_names_order_or_repetition():
    assert code([ERM(LINEAR), PGD()]) == code({"b": PGD(), "a": [ERM(LINEAR), PGD()]}.values())


class Plain:
    """Holds a value, and is no dataclass."""

    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(
    "holder",
    [
        lambda value: [[value]],
        lambda value: {"name": {"inner": value}},
        lambda value: {value: 1},
        lambda value: frozenset({value}),
        lambda value: AdversarialTraining(LINEAR, inner=value),
        lambda value: functools.partial(print, value),
        lambda value: functools.partial(print, file=value),
        lambda value: Plain(Plain(value)),
        lambda value: type(value),
        lambda value: value.respond,
        lambda value: type(value).respond,
    ],
    ids=[
        "list", "mapping", "key", "set", "field", "argument", "named argument", "attributes",
        "class", "method", "function",
    ],
)  # fmt: skip
def test_whatever_holds_a_value_uses_its_code(holder):
    assert "arena/attacks/pgd.py" in sources([holder(PGD())])


def test_what_holds_itself_is_read_once():
    loop = Plain(None)
    loop.value = [loop]
    assert "test_identity.py" in sources([loop])


USER = """
from dataclasses import dataclass
from {how}

@dataclass(frozen=True)
class Own:
    number: int = 0
"""


@pytest.mark.parametrize(
    ("how", "home"),
    [
        ("arena import Labelled", "arena/core.py"),
        ("arena import MoveOrder as Order, WhiteBox", "arena/knowledge.py"),
        ("arena import *", "arena/games/game.py"),
        ("arena import chance", "arena/chance.py"),
        ("dataclasses import field; import arena", "arena/arena.py"),
    ],
)
def test_arenas_public_names_are_followed_to_their_homes(tmp_path, monkeypatch, how, home):
    (tmp_path / "own_names.py").write_text(USER.format(how=how))
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_names")
    found = sources([own.Own()])
    del sys.modules["own_names"]
    assert home in found and "arena/__init__.py" not in found


SCRIPT = """
import sys
from dataclasses import dataclass
from arena.identity import code, sources

@dataclass(frozen=True)
class Own:
    number: int = {number}

print(code([Own()]), *sources([Own()]))
"""


def run(*arguments, cwd):
    root = str(Path(arena.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    return said.stdout.split()


def test_a_script_is_its_file(tmp_path):
    scripts = tmp_path / "a.py", tmp_path / "deep" / "a.py"
    scripts[1].parent.mkdir()
    for script in scripts:
        script.write_text(SCRIPT.format(number=1))
    found = [run(str(script), cwd=tmp_path) for script in scripts]
    assert found[0] == found[1] and "a.py" in found[0]  # wherever it is
    scripts[0].write_text(SCRIPT.format(number=2))
    assert run(str(scripts[0]), cwd=tmp_path)[0] != found[0][0]


def test_code_without_a_file_is_never_the_same_twice(tmp_path):
    both = run("-c", SCRIPT.format(number=1) + "print(code([Own()]))", cwd=tmp_path)
    assert both[0] != both[-1] and "__main__" in both


def test_a_users_module_may_have_the_name_of_one_of_pythons(tmp_path):
    (tmp_path / "statistics.py").write_text("MINE = 1\n")
    (tmp_path / "a.py").write_text("import json, statistics\n" + SCRIPT.format(number=1))
    assert run("a.py", cwd=tmp_path)[1:] == [
        "a.py",
        "arena/identity.py",
        "arena/modules.py",
        "statistics.py",
    ]


def test_a_file_that_is_no_python_counts_by_its_bytes(mine):
    folder, strategy = mine
    (folder / "mine_elsewhere.py").write_text("def broken(:\n")
    broken = code([strategy])
    (folder / "mine_elsewhere.py").write_text("def broken::\n")
    assert code([strategy]) != broken


def test_every_module_of_arena_is_found_and_read():
    root = Path(arena.__file__).parent
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "arena":
            file = modules.located(name)
            assert file.path == path and file.label == str(path.relative_to(root.parent))


class Late:
    """Imports inside a function."""

    def both(self):
        import json

        from arena.attacks.honest import Honest

        return json, Honest


def test_imports_inside_functions_count_but_not_pythons_own_library():
    found = sources([Late])
    assert "arena/attacks/honest.py" in found and UNKNOWN not in found.values()
    assert not any("json" in name for name in found)


@pytest.mark.parametrize("name", ["core.py", "modules.py", "data/tabular.py"])
def test_trees_have_one_text_if_and_only_if_they_are_equal(name):
    tree = ast.parse((Path(arena.__file__).parent / name).read_text())
    found = {(ast.dump(node), modules._shape(node)) for node in ast.walk(tree)}
    assert len({dump for dump, _ in found}) == len(found) == len({text for _, text in found})


def test_the_text_of_a_tree_has_nothing_that_a_version_of_python_may_lack():
    function = ast.parse("def f(): ...").body[0]
    function.type_params = []  # from Python 3.12 on
    function._fields = (*function._fields, "a_field_of_the_future", "type_params")
    assert modules._shape(function) == modules._shape(ast.parse("def f(): ...").body[0])
