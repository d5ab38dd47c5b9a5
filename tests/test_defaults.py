"""An option's yaml and its class say the same: one default, wherever a strategy is made from."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from arena import schema

CONF = Path(__file__).parent.parent / "conf"
GROUPS = ("attacker/*", "defender/*", "learner", "game", "data", "study", "protocol")


def plain(path):
    """Whether an option is named after its class: others are presets, which differ on purpose."""
    cls = OmegaConf.load(path)["_target_"].rpartition(".")[2].lower()
    return path.stem.replace("_", "") == cls


YAMLS = [path for group in GROUPS for path in sorted(CONF.glob(f"{group}/*.yaml")) if plain(path)]
EXCEPTION = re.compile(r"^(\w+):.* # .*\(in Python: .+\)$")
"""A field that is meant to differ ends its comment so, with what the class has instead."""


def tuples(value):
    """The value with tuples for lists, as a declaration holds it."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value


def different(path):
    """The fields to which a yaml gives another value than its class does."""
    node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    module, _, name = node.pop("_target_").rpartition(".")
    found = set()
    for field in dataclasses.fields(getattr(importlib.import_module(module), name)):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        written = node.get(field.name, default)
        if default is dataclasses.MISSING or "${" in str(written):
            continue  # no default, or a value that the rest of the configuration decides
        if tuples(schema.build(written)) != tuples(default):
            found.add(field.name)
    return found


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(CONF)))
def test_a_yaml_has_the_defaults_of_its_class_or_says_that_it_has_others(path):
    marked = {
        match.group(1) for line in path.read_text().splitlines() if (match := EXCEPTION.match(line))
    }
    assert different(path) == marked


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        ("pgd.PGD", {"steps": 20, "step": 0.15}, set()),
        ("pgd.PGD", {"steps": 21, "step": 0.15}, {"steps"}),
        ("joint.Joint", {"attack": {"_target_": "arena.attacks.pgd.PGD"}}, set()),
        ("joint.Joint", {"attack": {"_target_": "arena.attacks.fgsm.FGSM"}}, {"attack"}),
    ],
)
def test_a_difference_is_found(target, fields, expected, tmp_path):
    path = tmp_path / "option.yaml"
    OmegaConf.save({"_target_": f"arena.attacks.{target}", **fields}, path)
    assert different(path) == expected


def test_there_is_something_to_test():
    assert len(YAMLS) > 40
