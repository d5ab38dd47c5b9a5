"""What is attacked: a weak and a robust MNIST CNN, trained once and kept, and a wide ResNet."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from arena import chance
from arena.actions.lp import Linf
from arena.attacks.pgd import PGD
from arena.core import Labelled, Task
from arena.costs import ErrorRate, Negation
from arena.data.mnist import MNIST
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.learners.networks import CNN
from arena.learners.wide_resnet import WideResNet
from arena.training.classifiers import ModuleClassifier, committed

NAMES = ("weak", "robust", "wide")
EPS = 0.25
"""Radius of the L-inf ball: PGD-40 leaves 0.1 % of the weak model in it, 82 % of the robust."""


@dataclass(frozen=True)
class Subject:
    """A model, and the inputs to attack it on.

    Attributes:
        module: As a user writes it: frozen, in PyTorch's own memory layout. Peers and floors get
            this one.
        model: The same as a defender's move, which may lay it out otherwise. Ours get this one.
    """

    module: torch.nn.Module
    model: ModuleClassifier
    data: Labelled
    eps: float


def subject(name, examples, folder, device):
    """The model of this name, on `device`.

    MNIST models are read from `folder`, or trained and put there; None where there is no MNIST,
    neither in ARENA_MNIST nor beside the checkout.
    """
    if name == "wide":
        return wide(examples, device)
    data = mnist()
    if data is None:
        return None
    train, test = data
    path, learner = Path(folder) / f"{name}.safetensors", CNN((16, 32))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        parameters = trained(name, learner, train).state()
        save_file({key: part.contiguous() for key, part in parameters.items()}, path)
    module = learner.build(train.shape, train.classes, seed=0)
    module.load_state_dict(load_file(path))
    return frozen(module, test[:examples], EPS, device)


def mnist():
    """Its training and test images, from ARENA_MNIST or beside the checkout; None without."""
    beside = Path(__file__).parents[3] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("ARENA_MNIST", beside))
    return MNIST(str(folder)).load() if folder.is_dir() else None


def trained(name, learner, data):
    """Nobody defends the weak model; the robust one trains against one large step (2001.03994)."""
    if name == "weak":
        return ERM(learner, epochs=1).train(data[:20000], seed=0)
    task = Task(data.shape, data.classes, data.box, Linf(1.2 * EPS), Negation(ErrorRate()))
    inner = PGD(steps=1, step=1.25)
    return AdversarialTraining(learner, epochs=6, inner=inner).train(data, 0, task)


def wide(examples, device):
    """WRN-28-10 on inputs of CIFAR's size: noise, labelled as the untrained model answers it.

    For times on an accelerator, not for what is left.
    """
    x = chance.uniform(chance.keys(0, examples), (3, 32, 32))
    module = WideResNet(28, 10).build((3, 32, 32), 10, seed=0)
    found = frozen(
        module, Labelled(x, torch.zeros(examples, dtype=torch.int64), 10), 8 / 255, device
    )
    with torch.no_grad():
        for given, y in zip(found.data.x.split(128), found.data.y.split(128), strict=True):
            y.copy_(found.model.labels(given))
    return found


def frozen(module, data, eps, device):
    """The subject of a module."""
    module = module.to(device).eval().requires_grad_(False)
    model = committed(copy.deepcopy(module), data.classes)
    return Subject(module, model, data.to(device), eps)
