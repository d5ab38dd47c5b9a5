"""What is attacked: a weak and a robust MNIST CNN, trained once and kept."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from arena.actions.lp import Linf
from arena.attacks.pgd import PGD
from arena.core import Labelled, Task
from arena.costs import ErrorRate, Negation
from arena.data.mnist import MNIST
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.learners.classifiers import ModuleClassifier, committed
from arena.learners.networks import CNN

TRAINED_ON = 20000
NAMES = ("weak", "robust")
EPS = 0.3
"""Radius of the L-inf ball: nothing is left of the weak model in it, about 85 % of the robust."""


@dataclass(frozen=True)
class Subject:
    """A model, and the inputs to attack it on.

    Attributes:
        module: As a user writes it: frozen, in PyTorch's own memory layout. Peers and floors get
            this one.
        model: The same as a defender's move, which may lay it out otherwise. Ours get this one.
    """

    name: str
    module: torch.nn.Module
    model: ModuleClassifier
    data: Labelled
    eps: float = EPS


def subject(name, examples, folder, device):
    """The model `weak` or `robust`, read from `folder` or trained and put there.

    None where there are no MNIST files: neither in ARENA_MNIST nor beside the checkout.
    """
    beside = Path(__file__).parents[3] / "shared" / "data" / "mnist"
    mnist = Path(os.environ.get("ARENA_MNIST", beside))
    if not mnist.is_dir():
        return None
    train, test = MNIST(str(mnist)).load()
    path, learner = Path(folder) / f"{name}.safetensors", CNN((16, 32))
    if not path.is_file():
        parameters = trained(name, learner, train[:TRAINED_ON]).state()
        save_file({key: part.contiguous() for key, part in parameters.items()}, path)
    module = learner.build(train.shape, train.classes, seed=0)
    module.load_state_dict(load_file(path))
    module = module.to(device).eval().requires_grad_(False)
    model = committed(copy.deepcopy(module), train.classes)
    return Subject(name, module, model, test[:examples].to(device))


def trained(name, learner, data):
    """Nobody defends the weak model; the robust one is trained against PGD-7 (1706.06083)."""
    if name == "weak":
        return ERM(learner, epochs=1).train(data, seed=0)
    task = Task(data.shape, data.classes, data.box, Linf(EPS), Negation(ErrorRate()))
    inner = PGD(steps=1, step=1.25)  # 2001.03994: one large step from a random start
    return AdversarialTraining(learner, epochs=2, inner=inner).train(data, 0, task)
