"""What training takes, over the bare passes of one adversarial-training epoch.

*Floor*: for every batch k times forward and backward to the inputs, on the frozen module in
evaluation mode, and once forward and backward to the parameters in training mode. No steps,
projections, losses of an attacker's own, random numbers or optimizer. Through the module as a user
would write it, in PyTorch's own layout; and in the layout that ours has found faster, which is the
stricter floor.

In a repeat everybody trains one epoch on the same images, one after the other, and is divided by
the floors of that repeat.
"""

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from arena import chance
from arena.actions.lp import Linf
from arena.attacks.engines.borrowed import secluded
from arena.attacks.fgsm import FGSM
from arena.attacks.pgd import PGD
from arena.core import Task
from arena.costs import ErrorRate, Negation
from arena.defenses.adversarial_training import AdversarialTraining
from arena.defenses.erm import ERM
from arena.defenses.free import FreeAdversarialTraining
from arena.defenses.trades import TRADES
from arena.learners.networks import CNN
from arena.training.classifiers import laid_out
from tests.parity import references

from . import meters, models

STEPS, REPLAYS, BATCH, STEP = 7, 8, 128, 0.3
LEARNER = CNN((16, 32))
ADV_LIB = {"steps": STEPS, "relative_step_size": STEP}
PGD_NAME = f"PGD-{STEPS}"
FAST_SHARE = "fast, of PGD"
FLOOR, STRICTER = "floor", "floor, our layout"
PROMISED = {PGD_NAME: 1.05, FAST_SHARE: 0.25}


def ours(data, task):
    """Trainings of one epoch by name."""
    one = {"epochs": 1, "batch_size": BATCH}

    def pgd(steps=STEPS, step=STEP, **options):
        return PGD(steps, step, **{"returns": "last"} | options)

    trainers = {
        PGD_NAME: AdversarialTraining(LEARNER, inner=pgd(), **one),
        f"{PGD_NAME}, best iterate": AdversarialTraining(LEARNER, inner=pgd(returns="best"), **one),
        f"{PGD_NAME} bf16": AdversarialTraining(LEARNER, inner=pgd(precision="bfloat16"), **one),
        f"TRADES-{STEPS}": TRADES(LEARNER, steps=STEPS, step=STEP, **one),
        "fast": AdversarialTraining(LEARNER, inner=FGSM(1.25, random_start=True), **one),
        "fast bf16": AdversarialTraining(LEARNER, inner=pgd(1, 1.25, precision="bfloat16"), **one),
        f"free, {REPLAYS} replays": FreeAdversarialTraining(LEARNER, replays=REPLAYS, **one),
        "ERM": ERM(LEARNER, **one),
    }
    return {name: partial(trainer.train, data, 0, task) for name, trainer in trainers.items()}


def floor(data, steps, layout, passes=1):
    """The bare passes of an epoch: `steps` to the inputs, and `passes` to the parameters."""
    module = layout(LEARNER.build(data.shape, data.classes, 0).to(data.x.device))
    for rows in torch.arange(len(data)).split(BATCH):
        batch = data[rows]
        module.eval().requires_grad_(False)
        # A pass over images that are mostly zeros is cheaper than one over attacked ones.
        x = Linf(models.EPS).sample(batch.x, chance.keys(0, len(batch), batch.x.device))
        for _ in range(steps):
            x = x.detach().requires_grad_()
            torch.autograd.grad(cross_entropy(module(x), batch.y, reduction="sum"), x)
        module.train().requires_grad_(True)
        for _ in range(passes):
            module.zero_grad()
            cross_entropy(module(x.detach()), batch.y).backward()


def loop(data, attack):
    """An epoch of adversarial training by a library's attack in the loop that its users write.

    Libraries leave freezing the module to their callers, and this one does.
    """
    module = LEARNER.build(data.shape, data.classes, 0).to(data.x.device)
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    for rows in torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).split(BATCH):
        batch = data[rows]
        module.eval().requires_grad_(False)
        moved = attack(module, batch.x, batch.y, models.EPS)
        module.train().requires_grad_(True)
        optimizer.zero_grad()
        cross_entropy(module(moved), batch.y).backward()
        optimizer.step()


def art(data):
    """ART's AdversarialTrainerMadryPGD, which owns its loop."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    module = LEARNER.build(data.shape, data.classes, 0)
    estimator = PyTorchClassifier(
        module,
        nn.CrossEntropyLoss(),
        data.shape,
        data.classes,
        torch.optim.Adam(module.parameters(), 2e-3),
        clip_values=data.box,
        device_type="cpu" if data.x.device.type == "cpu" else "gpu",
    )
    options = {"eps": models.EPS, "eps_step": STEP * models.EPS, "max_iter": STEPS}
    trainer = AdversarialTrainerMadryPGD(estimator, nb_epochs=1, batch_size=BATCH, **options)
    trainer.fit(data.x.cpu().numpy(), data.y.cpu().numpy())


def quietly(run, data):
    """A run whose library prints as it goes, and warns."""
    silent = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
    with silent[0], silent[1], secluded(data.x, 0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()


def measured(data, repeats):
    """For each training its CPU seconds an epoch, and their share of both floors of the repeat."""
    device = data.x.device
    task = Task(data.shape, data.classes, data.box, Linf(models.EPS), Negation(ErrorRate()))
    floors = {
        FLOOR: partial(floor, data, STEPS, lambda module: module),
        STRICTER: partial(floor, data, STEPS, laid_out),
        "floor, one step": partial(floor, data, 1, laid_out),
        f"floor, {REPLAYS} replays": partial(floor, data, 0, laid_out, REPLAYS),
        "floor, no step": partial(floor, data, 0, laid_out),
    }
    runs = ours(data, task)
    peers = {
        "adv_lib": partial(loop, data, references.adv_lib("pgd_linf", ball=True, **ADV_LIB)),
        "torchattacks": partial(loop, data, references.torchattacks("PGD", STEP, steps=STEPS)),
        "art": partial(art, data),
    }
    for name, peer in peers.items():
        if references.installed(f"{name}:"):
            runs[f"{name} {PGD_NAME}"] = partial(quietly, peer, data)
    seconds = {name: [] for name in (*floors, *runs)}
    for repeat in range(repeats + 1):
        for name, run in (*floors.items(), *runs.items()):
            took = meters.seconds(run, device)
            if repeat:  # the first warms up: imports, and the allocator
                seconds[name].append(took)

    def shares(name, of):
        return [a / b for a, b in zip(seconds[name], seconds[of], strict=True)]

    rows = {
        name: {"seconds": took, "to floor": shares(name, FLOOR), "stricter": shares(name, STRICTER)}
        for name, took in seconds.items()
    }
    for name in ("fast", "fast bf16"):
        shared = shares(name, PGD_NAME)
        rows[f"{name}, of PGD"] = {"seconds": [], "to floor": shared, "stricter": []}
    return rows
