"""Small games that many tests play."""

import torch

from arena import Arena, Knowledge, MoveOrder, Player, Turn, WhiteBox
from arena.actions.decisions import Confidence
from arena.actions.lp import Linf
from arena.attacks.pgd import PGD
from arena.costs import ErrorRate, Negation
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.defenses.retrain import Retrain
from arena.games.evasion import Evasion
from arena.learners.networks import MLP
from arena.ledger import Ledger

LINEAR = MLP(())
ORDERS = {
    "attacker_first": MoveOrder.attacker_first(),
    "simultaneous": MoveOrder.simultaneous(),
    "defender_first": MoveOrder.defender_first(),
}


def attacker(strategy=None, knowledge=None, actions=None, cost=None):
    return Player(
        actions or Linf(0.15),
        cost or Negation(ErrorRate()),
        knowledge or Knowledge.white_box(),
        strategy or PGD(steps=5, step=0.3),
    )


def defender(strategy=None, knowledge=None, actions=None, cost=None):
    return Player(
        actions or Confidence(),
        cost or ErrorRate(),
        knowledge or Knowledge(samples=True),
        strategy or ERM(LINEAR, epochs=3),
    )


def retrain(epochs=3, memory="all", learner=LINEAR):
    return Retrain(ERM(learner, epochs=epochs), memory)


def evasion(attacker_=None, defender_=None, order="defender_first", seed=0, **game):
    options = {"examples": 80, **game}
    batch_size = options.pop("rows", 1024)
    players = {"attacker": attacker_ or attacker(), "defender": defender_ or defender()}
    return Arena(Evasion(Digits(), **options), players, ORDERS[order], seed, batch_size)


def last(arena, rounds=1):
    *_, record = arena.play(rounds)
    return record


class Constant(torch.nn.Module):
    """Always the same logits."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("fixed", torch.tensor(logits))

    def forward(self, x):
        return self.fixed.expand(len(x), -1) + 0.0 * x.flatten(1).sum(1, keepdim=True)


def seen(model, data, ledger=None):
    """A white box of `model`, as the attacker dealt `data` sees it."""
    ledger = ledger or Ledger(len(data), None)
    return WhiteBox("defender", Knowledge.white_box(), {}, model, ledger)


def turn_on(view, strategy, data, actions=None, cost=None, seed=7, batch_size=64):
    """The attacker's turn, with `view` for whatever it asks to see."""
    player = attacker(strategy, actions=actions, cost=cost)
    return Turn(player, 0, data, None, None, seed, batch_size, lambda opponent, kind: view)
