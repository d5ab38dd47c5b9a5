"""Certificates in the game: counted beside every attack, kept, and never contradicted."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from sklearn.tree import DecisionTreeClassifier
from small import LINEAR, attacker, defender, evasion, last
from test_gauntlet import played

from arena.actions.lp import L0, Linf
from arena.attacks.honest import Honest
from arena.attacks.pgd import PGD
from arena.certificates.crown import Crown
from arena.certificates.interval import Interval
from arena.classification import Refuted
from arena.data.digits import Digits
from arena.defenses.certifying import Certifying
from arena.defenses.erm import ERM
from arena.defenses.fixed import Fixed
from arena.defenses.interval_training import IntervalTraining
from arena.defenses.transformed import Transformed
from arena.learners.networks import MLP
from arena.log import RunLog
from arena.studies.gauntlet import certified
from arena.training.classifiers import ModuleClassifier
from arena.transformations.gaussian_noise import GaussianNoise


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


NET = MLP((16,))


@pytest.mark.parametrize(
    "strategy",
    [
        Certifying(IntervalTraining(NET, epochs=20), Interval()),
        Certifying(IntervalTraining(NET, epochs=20), Crown()),
        Certifying(ERM(NET, epochs=5), Crown()),
    ],
    ids=["interval", "crown", "not trained for it"],
)
def test_a_certificate_is_never_below_what_an_attack_reaches(strategy):
    against = attacker(PGD(steps=20, step=0.2), actions=Linf(0.05))
    arena = evasion(against, defender(strategy), examples=200)
    record = last(arena)
    assert record.metrics["certified_error"] >= record.metrics["attacked_error"]
    assert record.certified.any() and not record.certified.all()
    kept = arena.board.pack("defender", arena._past.standing["defender"])
    again = strategy.restore({k: v.clone() for k, v in kept.items()}, arena.board.training)
    dealt = arena.board.dealt[arena.board.scored]
    assert torch.equal(again.certified(dealt, against.actions), record.certified)


def test_the_network_is_as_it_was():
    plain, proved = ERM(NET, epochs=2), Certifying(ERM(NET, epochs=2))
    records = [last(evasion(attacker(), defender(strategy))) for strategy in (plain, proved)]
    assert records[0].metrics["attacked_error"] == records[1].metrics["attacked_error"]


def test_what_cannot_be_certified_is_refused():
    data, _ = Digits().load()
    few = data[slice(200)]
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(few.x.flatten(1), few.y)
    with pytest.raises(ValueError, match="Certifying is put around a module, and of=Fixed commits"):
        evasion(attacker(Honest()), defender(Certifying(Fixed(tree))))
    noisy = Certifying(Transformed(ERM(NET, epochs=1), GaussianNoise(0.1)))
    with pytest.raises(ValueError, match="not the RandomClassifier of Transformed"):
        last(evasion(attacker(), defender(noisy)))
    with pytest.raises(ValueError, match="L0"):
        last(evasion(attacker(Honest(), actions=L0(3)), defender(Certifying(ERM(NET, epochs=1)))))
