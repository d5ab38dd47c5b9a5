"""Training against attacks that stay as they are: who meets what, and what is learned."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from small import LINEAR
from torch.nn.functional import cross_entropy

from arena import Labelled
from arena.actions.lp import Linf
from arena.attacks.pgd import PGD
from arena.core import Task
from arena.costs import ErrorRate, Negation
from arena.data.digits import Digits
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.defenses.static_training import Faced, StaticTraining, answering
from arena.defenses.trades import TRADES
from arena.defenses.weight_perturbation import AdversarialWeightPerturbation
from arena.learners.networks import MLP
from arena.store import Store
from arena.training.trainer import Step, Trainer


def numbered(n, attack):
    """Inputs that say which attack made them of which example."""
    x = torch.zeros(n, 1, 1, 2)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = torch.arange(n) / n, attack
    return x


@dataclass(frozen=True)
class Looking(Trainer):
    """Records the batches that its loss is asked about."""

    seen: ClassVar[list] = []

    def loss(self, module, step):
        Looking.seen.append((step.rows.clone(), step.batch.x.clone(), step.batch.y.clone()))
        return cross_entropy(module(step.batch.x), step.batch.y)


@pytest.fixture
def met():
    n = 1000
    Looking.seen.clear()
    data = Labelled(numbered(n, 0.5), torch.arange(n) % 2, 2)
    faced = tuple(Faced(numbered(n, a), f"attack {a}", w) for a, w in ((0.0, 0.2), (1.0, 0.8)))
    answering(Looking(LINEAR, epochs=3, batch_size=100), faced, 0.0).train(data, seed=3)
    return data, Looking.seen


def test_every_example_meets_what_an_attack_made_of_itself(met):
    data, seen = met
    for rows, x, y in seen:
        assert torch.equal(x[:, 0, 0, 0], data.x[rows][:, 0, 0, 0])
        assert torch.equal(y, data.y[rows])
    assert len(seen) == 30 and all(len(rows) == 100 for rows, _, _ in seen)


def test_attacks_are_met_by_their_weights_and_drawn_afresh(met):
    """3,000 draws of probability .8: four standard deviations are .03."""
    drawn = torch.cat([x[:, 0, 0, 1] for _, x, _ in met[1]])
    rows = torch.cat([rows for rows, _, _ in met[1]])
    assert abs(float(drawn.mean()) - 0.8) < 0.03
    by_epoch = [
        part[where.argsort()] for part, where in zip(drawn.chunk(3), rows.chunk(3), strict=True)
    ]
    changed = (by_epoch[0] != by_epoch[1]).float().mean()
    assert abs(float(changed) - 2 * 0.8 * 0.2) < 0.06


def test_what_answers_an_attack_is_right_where_it_leads_and_nowhere_else():
    """Class 1 lies right of the middle; the attack mirrors it. The answer is the mirrored line."""
    x = torch.rand(400, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0, 0, 0] > 0.5).long()
    data = Labelled(x, y, 2)
    faced = (Faced(1 - x, "mirrored", 1.0),)
    model = answering(ERM(LINEAR, epochs=60, batch_size=50, lr=0.05), faced, 0.0).train(data, 0)
    assert (model.labels(1 - x) == y).float().mean() > 0.97
    assert (model.labels(x) == y).float().mean() < 0.03


def test_honest_inputs_alone_are_the_recipe_itself():
    data = Digits().load()[0][:200]
    recipe = ERM(MLP((16,)), epochs=2)
    answer = answering(recipe, (Faced(data.x, "honest", 1.0),), 0.0).train(data, seed=5)
    plain = recipe.train(data, seed=5)
    for name, value in plain.state().items():
        assert torch.equal(value, answer.state()[name])


def test_its_own_share_alone_is_adversarial_training():
    data = Digits().load()[0][:200]
    task = Task(data.shape, 10, data.box, Linf(0.1), Negation(ErrorRate()))
    inner = PGD(steps=2, step=0.5, returns="last")
    recipe = ERM(LINEAR, epochs=2)
    faced = (Faced(data.x, "honest", 1.0),)
    own = answering(recipe, faced, 1.0, inner).train(data, 5, task)
    trained = AdversarialTraining(LINEAR, epochs=2, inner=inner).train(data, 5, task)
    for name, value in trained.state().items():
        assert torch.equal(value, own.state()[name])


def test_trainings_are_told_apart_by_what_they_face(tmp_path):
    data = Digits().load()[0][:100]
    store = Store(tmp_path)
    recipe = ERM(LINEAR, epochs=1)
    for name, weight in (("a", 1.0), ("b", 1.0), ("a", 1.0)):
        answering(recipe, (Faced(data.x, name, weight),), 0.0).train(data, 0, store=store)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_trained_for_longer():
    faced = (Faced(torch.zeros(1), "a", 1.0),)
    assert answering(ERM(LINEAR, epochs=5), faced, 0.0, longer=2.5).epochs == 12


@pytest.mark.parametrize(
    "recipe",
    [
        AdversarialTraining(LINEAR),
        TRADES(LINEAR),
        AdversarialWeightPerturbation(LINEAR),
    ],
    ids=lambda recipe: type(recipe).__name__,
)
def test_what_is_no_loss_of_a_batch_is_refused(recipe):
    with pytest.raises(ValueError, match="is no loss of a batch as it is given"):
        answering(recipe, (Faced(torch.zeros(1), "a", 1.0),), 0.0)


@pytest.mark.parametrize("weights", [(), (0.5,), (0.7, 0.7)])
def test_weights_must_sum_to_one(weights):
    faced = tuple(Faced(torch.zeros(1), str(w), w) for w in weights)
    with pytest.raises(ValueError, match="make it 1"):
        StaticTraining(LINEAR, of=ERM(LINEAR), attacks=faced)


def test_a_step_outside_a_training_has_no_numbers():
    data = Digits().load()[0][:4]
    training = answering(ERM(LINEAR), (Faced(data.x, "a", 1.0),), 0.0)
    with pytest.raises(AssertionError, match="numbers its examples"):
        training.loss(torch.nn.Identity(), Step(data, 0))
