"""Every yaml composes, says what each option means, and plays a small match."""

import ast
import itertools
import re
import struct
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from arena import __main__ as shell
from arena import schema
from arena.arena import Arena, Unplayable

CONF = Path(__file__).parent.parent / "conf"
YAMLS = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))

# A match of seconds. What is swept below overrides it.
SMALL = [
    "game.examples=24",
    "learner=linear",
]
# What an attacker's strategy may need beside it: it plays in the first pair that lets it.
THREATS = ("linf_white", "linf_score", "linf_label")
BALLS = ("linf", "l2", "l1", "l0")
# And what a defender's may: it plays with the first of these actions that lets it.
ANSWERS = ("confidence", "refusal")


def of_other_games():
    """Options that an experiment with a game of its own chooses: they are played in it."""
    found = {}
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        chosen = {}
        for line in OmegaConf.to_container(OmegaConf.load(path)).get("defaults", []):
            if isinstance(line, dict):
                chosen |= {key.removeprefix("override /"): name for key, name in line.items()}
        if "game" in chosen:
            for group, name in chosen.items():
                found.setdefault(f"{group}/{name}", [f"experiment={path.stem}"])
    return found


# What other options need beside them to be playable.
COMPANIONS = (
    of_other_games()
    | {
        "attacker/actions/pool": ["threat=replay"],
        "attacker/actions/l0": ["threat=linf_white"],
        "attacker/strategy/replay": ["threat=replay"],
        "attacker/knowledge/gray_box": ["threat=gray"],
        "attacker/knowledge/scores": ["threat=linf_score"],
        "attacker/knowledge/labels": ["threat=linf_label"],
        "attacker/knowledge/no_box": ["threat=transfer"],
        "defender/knowledge/task": ["defender/strategy=erm"],
        "attacker/actions/feature_changes": ["experiment=dalvi"],
        "attacker/actions/deletions": ["experiment=globerson_roweis"],
        "attacker/strategy/minimum_cost_camouflage": ["experiment=dalvi"],
        "attacker/strategy/worst_deletion": ["experiment=globerson_roweis"],
        "attacker/strategy/levels_first": [
            "defender/strategy=feature_squeezing",
            "defender/actions=refusal",
            "defender/cost=refusal",
            "defender/knowledge=task",
        ],
        "defender/strategy/adversary_aware_bayes": ["experiment=dalvi"],
        "defender/strategy/constant": ["threat=transfer"],
        "defender/strategy/decision_tree": ["threat=linf_score"],
        "defender/strategy/nearest_neighbors": ["threat=linf_score"],
        "data/spambase": ["defender.actions.classes=2"],
        "data/mnist_4_7": ["defender.actions.classes=2"],
        "data/npz": ["data.train=images.npz"],
        "study/responding/trained": ["study=double_oracle"],
        "study/responding/average": ["study=repeated_play"],
        "study/responding/replies": ["study=double_oracle"],
    }
    | {
        f"{player}/strategy/mix": ["experiment=matching_pennies", f"{player}.actions.pure=false"]
        for player in ("attacker", "defender")
    }
    | {"defender/strategy/commit": ["experiment=conitzer_sandholm"]}
)
WHOLE = {option for option, with_ in COMPANIONS.items() if "experiment" in with_[0]}
# What stands in for data that are read from files, or else fetched.
SAMPLES = {"arena.data.mnist.MNIST": "idx", "arena.data.tabular.Tabular": "table.csv"}


def composed(overrides):
    """The configuration with these overrides; what it has composed before is not composed again."""
    return deepcopy(_composed(tuple(overrides)))


@cache
def _composed(overrides):
    OmegaConf.register_new_resolver("run_name", shell.run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda: "sweep", replace=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides))
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def said_in(part, whole):
    if isinstance(part, dict):
        return all(key in whole and said_in(value, whole[key]) for key, value in part.items())
    return part == whole


@pytest.mark.parametrize(
    "path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem
)
def test_an_experiment_sets_what_it_says(path):
    said = OmegaConf.to_container(OmegaConf.load(path))
    said.pop("defaults", None)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"experiment={path.stem}"])
    assert said_in(said, OmegaConf.to_container(config))


def small(option):
    """Overrides that choose a yaml ("group/name") in a match of seconds."""
    group, _, name = option.rpartition("/")
    overrides = [o for o in SMALL if o.partition("=")[0] != group]
    if option in WHOLE or group == "experiment":
        overrides = []
    return [*COMPANIONS.get(option, []), f"{group}={name}", *overrides]


def sampled(overrides):
    """The overrides, with a sample in place of data that would have to be fetched."""
    node, key = composed(overrides)["data"], "data"
    while "of" in node:
        node, key = node["of"], f"{key}.of"
    if (sample := SAMPLES.get(node["_target_"])) is None:
        return overrides
    return [*overrides, f"{key}.path={sample}", "game.examples=24"]


def write_table(path):
    """A table of five words in mails, the label last; the first word is of one class."""
    words = np.random.default_rng(0).integers(0, 2, (90, 5))
    labels = (words[:, 0] + words[:, 1:3].all(1)) > 0
    rows = np.column_stack([words * 0.25, labels])
    path.write_text("".join(",".join(f"{value:g}" for value in row) + "\n" for row in rows))


def write_npz(path):
    """Some random images with their channels last."""
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)
    np.savez(path, x=images, y=np.arange(90) % 10)


def write_idx(folder):
    """Four IDX files of a few random images."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 120)):
        images = generator.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        header = struct.pack(">IIII", 0x0803, *images.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(n) % 10).astype(np.uint8)
        header = struct.pack(">II", 0x0801, n)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def test_there_is_something_to_test():
    assert len(YAMLS) > 40


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_option_has_a_comment_and_every_field_an_option(path):
    lines = (CONF / path).read_text().splitlines()
    assert lines[0].startswith("#"), "the first line says what this is"
    if path.parts[0] in ("threat", "experiment") or path.name == "config.yaml":
        return
    # A study's tables list examples of classes, whose own yaml say what their options are.
    option = r"\w+:" if path.parts[0] == "study" else r"\s*\w+:"
    uncommented = [
        line
        for line in lines[1:]
        if re.match(option, line) and not re.search("_target_| # |^defaults:", line)
    ]
    assert not uncommented
    config = OmegaConf.to_container(OmegaConf.load(CONF / path), resolve=False)
    declared = schema.declared(config["_target_"])
    assert declared is not None
    chosen = {key for line in config.pop("defaults", []) if line != "_self_" for key in line}
    assert set(declared) == (set(config) | chosen) - {"_target_"}, (
        "an option is missing, or unknown"
    )


def shortened(node):
    """The same configuration, with two epochs for every training in it."""
    if isinstance(node, list):
        return [shortened(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: 2 if key == "epochs" else shortened(value) for key, value in node.items()}


def match(overrides):
    """The match of a configuration, and that configuration."""
    config = shortened(composed(sampled(overrides)))
    schema.check(config)
    made = {key: schema.build(config[key]) for key in ("game", "order", "attacker", "defender")}
    players = {name: made[name] for name in ("attacker", "defender")}
    extras = {module for player in players.values() for module in player.strategy.requires}
    if absent := sorted(module for module in extras if find_spec(module) is None):
        pytest.skip(f"composed, not played: {', '.join(absent)} is not installed")
    return Arena(made["game"], players, made["order"], seed=1), config


def unrefused(option):
    """The match that plays an option; a strategy beside the first options that let it play."""
    if option.startswith("attacker/strategy/") and option not in COMPANIONS:
        choices = {"threat": THREATS, "attacker/actions": BALLS}
    elif option.startswith("defender/strategy/") and option not in COMPANIONS:
        choices = {"defender/actions": ANSWERS}
    else:
        choices = {}
    refusals = []
    for chosen in itertools.product(*choices.values()):
        beside = [f"{group}={name}" for group, name in zip(choices, chosen, strict=True)]
        try:
            return match([*beside, *small(option)])
        except Unplayable as refusal:
            refusals.append(str(refusal))
    pytest.fail("refused everywhere: " + "\n".join(refusals))


OPTIONS = [str(path.with_suffix("")) for path in YAMLS if path.parent != Path()]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_plays(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "idx")
    write_table(tmp_path / "table.csv")
    write_npz(tmp_path / "images.npz")
    arena, config = unrefused(option)
    (record,) = arena.play(1)
    assert set(record.payoffs) == {"attacker", "defender"}
    # A game says how many units it scores; evasion, all that nobody may see.
    units = arena.board.units
    assert all(len(cost) == units for cost in record.costs.values())
    if "revealed" in config["game"]:
        seen = any(player.knowledge.samples for player in arena.players.values())
        assert units == config["game"]["examples"] // (2 if seen else 1)


def test_the_default_configuration_is_typed_throughout():
    config = composed([])
    schema.check(config)
    for name in ("game", "order", "attacker", "defender", "study"):
        assert "_target_" in config[name]


def test_presets_lose_to_the_command_line():
    config = composed(["threat=linf_score", "attacker/strategy=hopskipjump"])
    assert config["attacker"]["strategy"]["_target_"].endswith("HopSkipJump")
    assert config["attacker"]["knowledge"]["probe"] == "scores"


def test_the_schema_reads_what_the_classes_declare():
    """The static reading of every target agrees with the class itself."""
    import dataclasses
    import importlib

    targets = {
        match
        for path in CONF.rglob("*.yaml")
        for match in re.findall(r"_target_: (arena[\w.]+)", path.read_text())
    }
    assert len(targets) > 25
    for target in targets:
        module, _, name = target.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        for ancestor in cls.__mro__:
            full = f"{ancestor.__module__}.{ancestor.__qualname__}"
            assert schema.derives(target, full) or not full.startswith("arena."), (target, full)
        if not dataclasses.is_dataclass(cls):
            continue
        read = schema.declared(target)
        fields = dataclasses.fields(cls)
        assert set(read) == {field.name for field in fields}, target
        for field in fields:
            required = field.default is dataclasses.MISSING
            required &= field.default_factory is dataclasses.MISSING
            assert read[field.name].required == required, f"{target}.{field.name}"


def test_the_classes_that_the_shell_asks_for_are_there():
    import importlib

    asked = {of for kind in shell._ROOT.values() for of in schema._classes_in(kind)}
    asked |= {name for name in schema._BUILDABLE if name.startswith("arena.")}
    assert len(asked) > 7
    for full in asked:
        module, _, name = full.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        assert f"{cls.__module__}.{cls.__qualname__}" == full


def test_annotations_are_written_as_the_schema_can_read_them():
    for path in (CONF.parent / "arena").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for line in node.body:
                    if isinstance(line, ast.AnnAssign):
                        assert "fields." not in ast.unparse(line.annotation), path
