"""Certificates in the game: counted beside every attack, kept, and never contradicted."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from small import LINEAR, attacker, defender, evasion, last
from test_gauntlet import played

from arena.attacks.honest import Honest
from arena.attacks.pgd import PGD
from arena.core import Refuted
from arena.defenses.erm import ERM
from arena.learners.classifiers import ModuleClassifier
from arena.log import RunLog
from arena.studies.gauntlet import certified


class Claiming(ModuleClassifier):
    """Claims to be right on every other example that it is right on, or on all."""

    def __init__(self, module, classes, every):
        super().__init__(module, classes)
        self.every = every

    def certified(self, given, actions):
        right = self.labels(given.x) == given.y
        return right & (torch.arange(len(given)) % self.every == 0)


@dataclass(frozen=True)
class Certain(ERM):
    every: int = 2

    def respond(self, turn):
        model = super().respond(turn)
        return Claiming(model.module, model.classes, self.every)


def match(strategy, every, **options):
    defends = defender(Certain(LINEAR, epochs=5, every=every))
    return evasion(attacker(strategy), defends, **options)


def test_what_is_certified_is_counted():
    record = last(match(Honest(), every=2))
    assert record.certified.dtype == torch.bool and len(record.certified) == 40
    assert record.metrics["certified_error"] == 1.0 - float(record.certified.double().mean())
    assert record.metrics["certified_error"] >= record.metrics["attacked_error"]
    assert not record.certified[1::2].any() and record.certified[::2].any()


def test_without_certificates_nothing_is_said_of_them():
    record = last(evasion())
    assert record.certified is None and "certified_error" not in record.metrics
    assert set(record.outcomes()) == {"attacker", "defender"}


def test_a_mistake_on_a_certified_example_stops_the_run():
    with pytest.raises(Refuted, match=r"input \d+ is certified to be answered \d anywhere in Linf"):
        last(match(PGD(steps=10, step=0.3), every=1))


def test_certificates_are_kept_by_example(tmp_path):
    arena = match(Honest(), every=2)
    with RunLog(tmp_path, {"a": 1}) as log:
        for record in arena.play(2):
            log.write(record, arena.state_dict())
    kept = load_file(tmp_path / "outcomes.safetensors")["certified"]
    assert kept.shape == (2, 40) and torch.equal(kept[-1], record.certified)
    with RunLog(tmp_path, {"a": 1}) as log:
        assert torch.equal(log.outcomes["certified"], kept)


def test_the_tables_bound_is_the_largest_of_the_columns():
    """A smaller ball has more certified; the bound of a line is for all of its attacks."""
    near, far, none = played([0.0, 0.0]), played([0.0, 1.0]), played([1.0, 1.0])
    near[0].outcomes["certified"] = torch.tensor([[True, True]]).numpy()
    far[0].outcomes["certified"] = torch.tensor([[True, False]]).numpy()
    assert certified({"near": near, "far": far, "none": none}).mean == 0.5
    assert certified({"none": none}) is None
