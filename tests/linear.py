"""A linear model, on which white-box attacks have a closed form, and a turn to play against it."""

import torch
from torch import nn

from arena import Knowledge, Labelled, Player, Turn, WhiteBox
from arena.actions.lp import L2, Linf
from arena.costs import ErrorRate, Negation
from arena.ledger import Ledger
from arena.training.classifiers import ModuleClassifier

# Room on all sides, so that the box never cuts the ball and the optimum has a closed form.
BOX = (-100.0, 100.0)


def linear_model(d=12, classes=2, seed=0):
    """Logits W x + b."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Linear(d, classes, device="meta").to_empty(device="cpu")
    module.weight.data = torch.randn(classes, d, generator=generator)
    module.bias.data = torch.randn(classes, generator=generator)
    return module


def turn_of(strategy, space, module, data, cost=None, rows=64, closing=False, budget=None):
    """A white-box attacker's turn against the module, and its ledger."""
    model = ModuleClassifier(module, data.classes)
    ledger = Ledger(len(data), budget)
    view = WhiteBox("defender", Knowledge.white_box(), {}, model, ledger)
    player = Player(space, cost or Negation(ErrorRate()), Knowledge.white_box(), strategy)
    strategy.check(player)
    return Turn(player, 0, data, None, None, 7, rows, lambda opponent, kind: view, closing), ledger


def play(strategy, space, module, data, cost=None, **turn):
    """The attack's move, and its ledger."""
    made, ledger = turn_of(strategy, space, module, data, cost, **turn)
    return strategy.respond(made), ledger


def margins(module, x, y):
    """Right logit less the other one, [B]."""
    logits = module(x)
    return logits.gather(1, y[:, None])[:, 0] - logits.gather(1, 1 - y[:, None])[:, 0]


def points(n=50, d=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    return Labelled(x, torch.randint(0, 2, (n,), generator=generator), 2, BOX)


def dual(weights, space):
    """The most that a linear function with these weights changes over the ball (dual norm)."""
    w = weights.abs()
    if isinstance(space, Linf):
        return space.eps * w.sum()
    if isinstance(space, L2):
        return space.eps * w.norm()
    return space.eps * w.max()


NO_PRIZE = Negation(ErrorRate(no_answer=0.0))
"""The cost of an attacker who wins nothing where the defender gives no answer."""
