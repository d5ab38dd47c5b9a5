"""The reference implementations behind three signatures, each with the settings it is compared at.

    WITHIN    (model, x, y, eps) -> x', the best that the library finds in a ball
    ASKING    the same from scores or labels alone
    MINIMUM   (model, x, y) -> x', the nearest mistake that it finds

`model` is a frozen module, `x` [B, C, H, W] in [0, 1]; names end in the ball's (or the size's)
norm. Passes and steps are those of the papers where they are affordable, and the same for all
libraries. What `ASKING` gives may lie outside the ball, where it counts as not found. Nothing here
imports a library before it is called: several take seconds.
"""

import sys
import warnings
from functools import cache
from importlib.util import find_spec
from unittest.mock import MagicMock

import torch

from arena.attacks.engines.borrowed import secluded

LIBRARIES = ("foolbox", "torchattacks", "art", "pyautoattack", "adv_lib", "cleverhans")


def installed(name):
    """Whether the library that a reference's name begins with is there."""
    return find_spec(name.split(":")[0]) is not None


class Asked(torch.nn.Module):
    """A model that counts what it is asked, in float32 whatever it is asked in."""

    def __init__(self, model):
        super().__init__()
        self.model, self.queries = model, 0
        self.eval()

    def forward(self, x):
        self.queries += len(x)
        return self.model(x.float())


def called(reference, seed, model, x, *arguments):
    """What a reference answers, as float32; its warnings are not ours to fail on."""
    with secluded(x, seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference(model, x, *arguments).detach().float()


# --- AutoAttack (pyautoattack) --------------------------------------------------------------


def autoattack(*attacks, norm="Linf", **settings):
    """Parts of AutoAttack at the settings of its standard version, or all of it if none is named.

    `settings` are of a part, as in `square__n_queries=500`.
    """

    def attack(model, x, y, eps):
        from pyautoattack import AutoAttack

        seed = int(torch.randint(1 << 30, ()))
        suite = AutoAttack(model, eps=eps, norm=norm, seed=seed, device=x.device)
        if attacks:
            suite.attacks_to_run = list(attacks)
        for name, value in settings.items():
            part, _, field = name.partition("__")
            setattr(getattr(suite, part), field, value)
        return suite.run_standard_evaluation(x, y, batch_size=len(x))[0]

    return attack


# --- torchattacks ---------------------------------------------------------------------------


def torchattacks(name, step=None, takes_eps=True, **options):
    """An attack by its class's name; `step`, as a share of eps, is what it calls alpha."""

    def attack(model, x, y, eps=None):
        import torchattacks

        more = {"alpha": step * eps} if step else {}
        more |= {"eps": eps} if takes_eps else {}
        return getattr(torchattacks, name)(model, **options, **more)(x, y)

    return attack


# --- foolbox --------------------------------------------------------------------------------


def foolbox(name, **options):
    """An attack by its class's name: what it returns, clipped to the ball if there is one."""

    def attack(model, x, y, eps=None):
        from foolbox import PyTorchModel, attacks

        wrapped = PyTorchModel(model, bounds=(0, 1), device=x.device)
        return getattr(attacks, name)(**options)(wrapped, x, y, epsilons=eps)[1]

    return attack


def foolbox_walk(name, **options):
    """A walk from a mistake by its class's name, begun at uniform noise as ours is.

    Left to itself it gives up the whole batch where noise is the right answer to one of its inputs.
    """

    def attack(model, x, y, eps):
        from foolbox import PyTorchModel, attacks

        start, able = x.clone(), torch.zeros(len(x), dtype=torch.bool)
        for _ in range(NOISE):
            noise = torch.rand_like(x)
            fits = ~able & (model(noise).argmax(1) != y)
            start[fits], able = noise[fits], able | fits
            if able.all():
                break
        wrapped = PyTorchModel(model, bounds=(0, 1), device=x.device)
        made, found = getattr(attacks, name)(**options), x.clone()
        found[able] = made.run(wrapped, x[able], y[able], starting_points=start[able])
        return found

    return attack


# --- ART ------------------------------------------------------------------------------------


def art(name, step=None, takes_eps=True, probabilities=False, **options):
    """An attack by its class's name; `step` is a share of eps. Some see probabilities."""

    def attack(model, x, y, eps):
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        classifier = PyTorchClassifier(
            torch.nn.Sequential(model, torch.nn.Softmax(1)) if probabilities else model,
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type=x.device.type,
        )
        more = {"eps_step": step * eps} if step else {}
        more |= {"eps": eps} if takes_eps else {}
        made = getattr(evasion, name)(classifier, **options, **more)
        truth = torch.nn.functional.one_hot(y, classes).cpu().numpy()
        return torch.from_numpy(made.generate(x.cpu().numpy(), y=truth)).to(x.device)

    return attack


# --- adversarial-library and CleverHans -----------------------------------------------------


@cache
def adv_lib_attacks():
    """The module `adv_lib.attacks`.

    On its way it imports a plotter and torchvision's models, which no attack here uses. The first
    does not install and the second does not import beside a CPU build of torch: both are absent
    while it is imported.
    """
    absent = {name: MagicMock() for name in ("visdom", "torchvision", "torchvision.models")}
    kept = {name: sys.modules[name] for name in absent if name in sys.modules}
    sys.modules.update(absent)
    try:
        import adv_lib.attacks
    finally:
        for name in absent:
            del sys.modules[name]
        sys.modules.update(kept)
    return adv_lib.attacks


def adv_lib(name, ball=False, **options):
    """An attack by its function's name."""

    def attack(model, x, y, eps=None):
        # L-inf PGD spells it with the Greek letter, the others in Latin.
        more = {("ε" if name == "pgd_linf" else "eps"): eps} if ball else {}
        return getattr(adv_lib_attacks(), name)(model, x, y, **options, **more)

    return attack


def cleverhans_carlini(**options):
    """CleverHans's C&W for L2."""

    def attack(model, x, y):
        from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2

        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        # It draws into its input in place.
        return carlini_wagner_l2(model, x.clone(), classes, y=y, **options)

    return attack


INF = float("inf")

NOISE = 100
"""Inputs of uniform noise that a walk from a mistake may try."""

WITHIN = {
    # PGD: 40 steps of eps / 10 from a random start.
    "torchattacks:pgd-linf": torchattacks("PGD", step=0.1, steps=40),
    "torchattacks:pgd-l2": torchattacks("PGDL2", step=0.1, steps=40),
    "foolbox:pgd-linf": foolbox("LinfPGD", steps=40, rel_stepsize=0.1),
    "art:pgd-linf": art(
        "ProjectedGradientDescent",
        step=0.1,
        max_iter=40,
        num_random_init=1,
        batch_size=1024,
        verbose=False,
    ),
    "adv_lib:pgd-linf": adv_lib("pgd_linf", ball=True, steps=40, relative_step_size=0.1),
    # APGD: 100 steps, one start; in L1 five, or five targets instead of nine, as AutoAttack has it.
    "pyautoattack:apgd-ce-linf": autoattack("apgd-ce"),
    "pyautoattack:apgd-ce-l2": autoattack("apgd-ce", norm="L2"),
    "pyautoattack:apgd-ce-l1": autoattack("apgd-ce", norm="L1"),
    "torchattacks:apgd-ce-linf": torchattacks("APGD", steps=100),
    "adv_lib:apgd-ce-linf": adv_lib("apgd", ball=True, norm=INF, loss_function="ce"),
    "pyautoattack:apgd-t-linf": autoattack("apgd-t"),
    "pyautoattack:apgd-t-l2": autoattack("apgd-t", norm="L2"),
    "pyautoattack:apgd-t-l1": autoattack("apgd-t", norm="L1"),
    # FAB: 100 steps, one start; "-t" over nine targets.
    "pyautoattack:fab-linf": autoattack("fab"),
    "pyautoattack:fab-l2": autoattack("fab", norm="L2"),
    "pyautoattack:fab-l1": autoattack("fab", norm="L1"),
    "pyautoattack:fab-t-linf": autoattack("fab-t"),
    # Square: the paper's 5000 queries are minutes; 500 tell as much here.
    "pyautoattack:square-linf": autoattack("square", square__n_queries=500),
    "pyautoattack:square-l2": autoattack("square", norm="L2", square__n_queries=500),
    "pyautoattack:square-l1": autoattack("square", norm="L1", square__n_queries=500),
    # It rescales the schedule of window sizes unless told not to, unlike AutoAttack.
    "torchattacks:square-linf": torchattacks("Square", n_queries=500),
    # The ensemble, as published.
    "pyautoattack:standard-linf": autoattack(),
}

CARLINI = {"binary_search_steps": 5, "initial_const": 0.01}

MINIMUM = {
    # C&W: 5 constants of 100 Adam steps each.
    "adv_lib:cw-l2": adv_lib("carlini_wagner_l2", max_iterations=100, **CARLINI),
    "foolbox:cw-l2": foolbox("L2CarliniWagnerAttack", steps=100, **CARLINI),
    "cleverhans:cw-l2": cleverhans_carlini(max_iterations=100, **CARLINI),
    "adv_lib:cw-linf": adv_lib("carlini_wagner_linf", max_iterations=100),
    # DDN and FMN: 100 steps. DDN's rounding to 256 levels is off: inputs here are real numbers.
    "adv_lib:ddn-l2": adv_lib("ddn", steps=100, levels=None),
    "foolbox:ddn-l2": foolbox("DDNAttack", steps=100),
    **{
        f"adv_lib:fmn-l{norm}": adv_lib("fmn", norm=float(norm), steps=100)
        for norm in ("0", "1", "2", "inf")
    },
    "foolbox:fmn-l0": foolbox("L0FMNAttack", steps=100),
    "foolbox:fmn-l1": foolbox("L1FMNAttack", steps=100),
    "foolbox:fmn-l2": foolbox("L2FMNAttack", steps=100),
    "foolbox:fmn-linf": foolbox("LInfFMNAttack", steps=100),
    # sigma-zero: 100 steps.
    "adv_lib:sigma-zero-l0": adv_lib("sigma_zero", num_steps=100),
    # EAD: 5 constants of 100 steps each, judged by L1.
    "foolbox:ead-l1": foolbox("EADAttack", steps=100, decision_rule="L1", **CARLINI),
    "torchattacks:ead-l1": torchattacks("EADL1", takes_eps=False, max_iterations=100, **CARLINI),
    # DeepFool: 50 steps.
    "adv_lib:deepfool-l2": adv_lib("df", norm=2, steps=50),
    "adv_lib:deepfool-linf": adv_lib("df", norm=INF, steps=50),
    "foolbox:deepfool-l2": foolbox("L2DeepFoolAttack", steps=50),
    "foolbox:deepfool-linf": foolbox("LinfDeepFoolAttack", steps=50),
}

ASKING = {
    # SPSA: 20 steps of 25 pairs. They ask as much of who is fooled already.
    "torchattacks:spsa-linf": torchattacks("SPSA", nb_iter=20, nb_sample=25, lr=0.02),
    # SimBA: 250 pixels, two queries each; a pixel moves by 0.4, as a fifth of eps does ours.
    "art:simba-l2": art(
        "SimBA",
        takes_eps=False,
        probabilities=True,
        attack="px",
        epsilon=0.4,
        max_iter=250,
        verbose=False,
    ),
    # Five estimates of 100 to 224 queries; bisections beside them.
    "art:hopskipjump-l2": art("HopSkipJump", takes_eps=False, norm=2, max_iter=5, verbose=False),
    "foolbox:hopskipjump-l2": foolbox_walk("HopSkipJumpAttack", steps=5),
    # A step a query, and one of ten steps another.
    "foolbox:boundary-l2": foolbox_walk("BoundaryAttack", steps=1000),
}
