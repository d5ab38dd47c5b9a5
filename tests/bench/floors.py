"""What an attack's passes alone take: bare loops, in fp32, on the bare module.

*Fixed floor*: the forward and input-gradient passes of the attack as published, each on the whole
batch. *Active floor*: the same loop, each example leaving after the pass that breaks it.

Which pass that is comes from a run of our own attack in fp32, whose books close for an example once
the model's answer to anything in its ball is wrong (`Until`): what we may do beyond that is not in
the floor. An example's passes then come one after the other, as in a loop; walks that ran side by
side (restarts, targets) do so too. Neither floor makes steps, projections or random numbers, finds
out who is broken, or moves the rows of those who stay: the first rows of the batch stand for them.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from arena import chance
from arena.actions.lp import Linf
from arena.classification import Classifier, decide
from arena.ledger import Ledger

from . import meters

ENOUGH = 100
"""Passes of one size in a row that are timed; of more, the time is scaled up."""


@dataclass(frozen=True)
class Stretch:
    """So many passes in a row of one size: rows that go forward, and how many come back."""

    passes: int
    forwards: int
    gradients: int


def fixed(n, forwards, gradients):
    """The stretches of n examples that make so many passes each."""
    return stretches(torch.full((n,), forwards), torch.full((n,), gradients))


def stretches(forwards, gradients):
    """The stretches of examples that make `forwards` [n] passes, `gradients` [n] of them back."""
    t = torch.arange(int(forwards.max()))[:, None]
    active = torch.stack([(count > t).sum(1) for count in (forwards, gradients)], 1)
    sizes, passes = torch.unique_consecutive(active, dim=0, return_counts=True)
    rows = zip(passes.tolist(), sizes.tolist(), strict=True)
    return [Stretch(k, ahead, back) for k, (ahead, back) in rows]


def spent(subject, plan):
    """Seconds of the passes of `plan`, on inputs such as an attack has.

    A pass over MNIST as it is, mostly zeros, is cheaper by 5 %.
    """
    data, device = subject.data, subject.data.x.device
    x = Linf(subject.eps).sample(data.x, chance.keys(0, len(data), device))

    def run(part, times):
        for _ in range(times):
            back = x[: part.gradients].detach().requires_grad_()
            if len(back):
                loss = cross_entropy(subject.module(back), data.y[: len(back)], reduction="sum")
                torch.autograd.grad(loss, back)
            if part.forwards > len(back):
                with torch.no_grad():
                    subject.module(x[len(back) : part.forwards])

    total = 0.0
    for part in plan:
        times = min(part.passes, ENOUGH)
        found = meters.seconds(lambda part=part, times=times: run(part, times), device)
        total += found * part.passes / times
    return total


class Until(Ledger):
    """Books of the passes of each example up to the one that breaks it."""

    def __init__(self, n, device):
        super().__init__(n, None, device)
        self.broken = torch.zeros(n, dtype=torch.bool, device=device)

    def passed(self, rows):
        self.rows, self.open = rows, (~self.broken[rows]).long()
        self.queries.index_add_(0, rows, self.open)

    def differentiated(self, rows):
        self.gradients.index_add_(0, rows, self.open)

    def plan(self):
        """The active floor's stretches."""
        return stretches(self.queries.cpu(), self.gradients.cpu())


class Watched(Classifier):
    """A classifier that tells a ledger whom its answers break.

    Mistakes outside the ball break nobody: FAB comes to its own from there.
    """

    def __init__(self, model, data, space, ledger):
        self.model, self.classes, self.ledger = model, model.classes, ledger
        self.data, self.space = data, space

    def logits(self, x):
        logits, rows = self.model.logits(x), self.ledger.rows
        labels = decide(logits.detach(), self.classes)
        wrong = (labels >= 0) & (labels != self.data.y[rows])
        legal = self.space.contains(self.data.x[rows], x.detach())
        self.ledger.broken[rows[wrong & legal]] = True
        return logits
