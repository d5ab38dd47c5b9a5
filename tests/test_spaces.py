"""Attacks declare the spaces that they serve, and advise options that exist."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from small import attacker

import arena.attacks
from arena.actions.lp import L0, L1, L2, Linf
from arena.actions.pool import Pool
from arena.attacks.engines.spaces import serving
from arena.classification import Perturbations
from arena.core import ActionSpace, Strategy

CONF = Path(__file__).parent.parent / "conf" / "attacker"


def attacks():
    """Every attack of arena's that declares its spaces."""
    for path in sorted(Path(arena.attacks.__file__).parent.glob("*.py")):
        module = importlib.import_module(f"arena.attacks.{path.stem}")
        for found in vars(module).values():
            own = isinstance(found, type) and found.__module__ == module.__name__
            if own and issubclass(found, Strategy) and hasattr(found, "spaces"):
                yield found


ATTACKS = list(attacks())


@dataclass(frozen=True)
class Elsewhere(ActionSpace):
    """A space that no attack knows."""

    def contains(self, given, output):
        return given

    def sample(self, given, key):
        return given


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_is_advised_can_be_chosen_and_serves(attack):
    instead = getattr(attack, "instead", "")
    with pytest.raises(
        ValueError, match=rf"{attack.__name__} cannot serve actions=Elsewhere"
    ) as told:
        serving(attacker(actions=Elsewhere()), attack.__name__, attack.spaces, instead)
    _, _, options = str(told.value).partition("use actions=")
    options, _, others = options.partition(", or ")
    for option in re.split(", | or ", options):
        target = OmegaConf.load(CONF / "actions" / f"{option}.yaml")["_target_"]
        module, _, name = target.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), name), attack.spaces)
    for strategy in re.split(" or ", others.removeprefix("strategy=")) if others else ():
        assert (CONF / "strategy" / f"{strategy}.yaml").exists()


def test_there_are_attacks_to_test():
    assert len(ATTACKS) > 20


def test_the_space_is_given_back_if_it_is_one_of_those():
    for space in (Linf(0.1), L2(1.0), L1(1.0), L0(2)):
        player = attacker(actions=space)
        assert serving(player, "Any", (Perturbations,)) is space
        assert serving(player, "Any", (L0, type(space))) is space
    with pytest.raises(ValueError, match="Any cannot serve actions=Pool; use actions=l0 or linf"):
        serving(attacker(actions=Pool()), "Any", (L0, Linf))
