"""Who judges ours and theirs, by the same rules."""

import torch
from small import attacker

from arena.classification import decide
from arena.core import Turn
from arena.knowledge import Knowledge, WhiteBox
from arena.ledger import Ledger

# Every library's L-inf attack exceeds eps by a rounding of float32: theirs is forgiven, ours is
# held to what the space contains.
ROUNDING = 1e-6


def turn_of(strategy, model, data, space, queries=None, seed=0):
    """The turn of an attacker who moves last, against a model as a white box.

    Its probes (not its passes) are at most `queries` an example.
    """
    player = attacker(strategy, Knowledge.white_box(), space)
    strategy.check(player)
    view = WhiteBox("defender", player.knowledge, {}, model, Ledger(len(data), queries))
    return Turn(player, 0, data, None, None, seed, len(data), lambda opponent, kind: view, True)


def ours(strategy, model, data, space, queries=None, seed=0):
    """What a strategy of ours plays; it must be legal."""
    x = strategy.respond(turn_of(strategy, model, data, space, queries, seed))
    assert space.contains(data.x, x).all()
    return x


def nearest(strategy, model, data, space):
    """The nearest mistakes that a strategy of ours finds, however far; in the box."""
    x, _ = strategy.nearest(turn_of(strategy, model, data, space))
    return x


@torch.no_grad()
def mistaken(model, data, x):
    """Whether [B] the answers to `x` are finite and wrong: NaN is no success, whoever says so."""
    labels = decide(model.logits(x), data.classes)
    return (labels >= 0) & (labels != data.y)


def robust(model, data, x, space):
    """The share of examples that `x` does not turn into mistakes within the space.

    Clean mistakes count as found. Output beyond `ROUNDING` of the space counts as not found.
    """
    near = (x - space.project(data.x, x)).abs().flatten(1).amax(1) <= ROUNDING
    found = mistaken(model, data, data.x) | (near & mistaken(model, data, x))
    return 1.0 - float(found.double().mean())


def distances(model, data, x, space):
    """The size [B] of each displacement that makes a mistake; infinity where none was found.

    Only the space's geometry matters, not its radius. Clean mistakes are at distance 0.
    """
    low, high = data.box
    found = mistaken(model, data, x)
    found &= ((x >= low - ROUNDING) & (x <= high + ROUNDING)).flatten(1).all(1)
    size = torch.where(found, space.size(data.x, x).double(), torch.inf)
    return torch.where(mistaken(model, data, data.x), 0.0, size)
