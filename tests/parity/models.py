"""What is attacked: two networks trained here, and a published one if it is there."""

import published

from arena.actions.lp import Linf
from arena.attacks.pgd import PGD
from arena.core import Task
from arena.costs import ErrorRate, Negation
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.learners.networks import CNN


def plain(train):
    """A CNN that nobody defended: nothing is left of it at eps 0.1 to 0.3."""
    return ERM(CNN((16, 32)), epochs=1).train(train, seed=0)


def hardened(train):
    """The same, trained against one large random-start step at eps 0.2 (2001.03994)."""
    actions, cost = Linf(0.2), Negation(ErrorRate())
    task = Task(train.shape, train.classes, train.box, actions, cost)
    inner = PGD(steps=1, step=1.25)
    return AdversarialTraining(CNN((16, 32)), epochs=2, inner=inner).train(train, 0, task)


def wong_kolter(train):
    """The certified network of Wong & Kolter (1711.00851), as published, beside the data."""
    return published.wong_kolter()
