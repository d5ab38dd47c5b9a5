"""Ours finds at least what theirs finds: same model, same inputs, same eps, same steps."""

import pytest
from referee import distances, nearest, ours, robust
from references import ASKING, MINIMUM, WITHIN, Asked, called, installed

from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.apgd import APGD
from arena.attacks.apgd_l1 import APGDL1
from arena.attacks.boundary import Boundary
from arena.attacks.carlini_wagner import CarliniWagner
from arena.attacks.carlini_wagner_linf import CarliniWagnerLinf
from arena.attacks.ddn import DDN
from arena.attacks.deepfool import DeepFool
from arena.attacks.ead import EAD
from arena.attacks.fab import FAB
from arena.attacks.fmn import FMN
from arena.attacks.hopskipjump import HopSkipJump
from arena.attacks.pgd import PGD
from arena.attacks.sigma_zero import SigmaZero
from arena.attacks.simba import SimBA
from arena.attacks.spsa import SPSA
from arena.attacks.square import Square
from arena.attacks.worst_case import WorstCase

PGD_40 = PGD(steps=40, step=0.1)
APGD_T = APGD(100, objective="dlr", targets=9)
# The margin was chosen on training images, see docs/attacks.md.
APGD_T_L1 = APGDL1(100, objective="margin", targets=5)
SQUARE_500 = Square(steps=499)  # and one query for the given input: 500
# The parts of AutoAttack, as in conf/attacker/strategy/autoattack.yaml.
AUTOATTACK = WorstCase((APGD(100), APGD_T, FAB(100), Square(5000)))

# A pair a line: ours, the names of theirs, the space, the number of test images.
BALLS = [
    (PGD_40, ("torchattacks:pgd-linf", "foolbox:pgd-linf"), Linf(0.2), 200),
    (PGD_40, ("torchattacks:pgd-l2",), L2(2.0), 200),
    # Between seeds 200 images move by a point: more where they can be had in a minute.
    (APGD(100), ("pyautoattack:apgd-ce-linf", "torchattacks:apgd-ce-linf"), Linf(0.2), 500),
    (APGD(100), ("pyautoattack:apgd-ce-l2",), L2(2.0), 200),
    (APGDL1(100, restarts=5), ("pyautoattack:apgd-ce-l1",), L1(12.0), 200),
    (APGD_T, ("pyautoattack:apgd-t-linf",), Linf(0.2), 200),
    (APGD_T, ("pyautoattack:apgd-t-l2",), L2(2.0), 200),
    (APGD_T_L1, ("pyautoattack:apgd-t-l1",), L1(12.0), 500),
    (FAB(100), ("pyautoattack:fab-linf", "pyautoattack:fab-t-linf"), Linf(0.2), 200),
    (FAB(100), ("pyautoattack:fab-l2",), L2(2.0), 200),
    (FAB(100), ("pyautoattack:fab-l1",), L1(12.0), 200),
    (SQUARE_500, ("pyautoattack:square-linf", "torchattacks:square-linf"), Linf(0.2), 200),
    (SQUARE_500, ("pyautoattack:square-l2",), L2(2.0), 200),
    (SQUARE_500, ("pyautoattack:square-l1",), L1(12.0), 200),
    (AUTOATTACK, ("pyautoattack:standard-linf",), Linf(0.2), 150),
]
# The same for minimum norms: a space of radius 0, so that ours does not end within it.
NORMS = [
    (CarliniWagner(), ("adv_lib:cw-l2", "foolbox:cw-l2", "cleverhans:cw-l2"), L2(0.0), 100),
    (CarliniWagnerLinf(), ("adv_lib:cw-linf",), Linf(0.0), 60),
    (DDN(), ("adv_lib:ddn-l2", "foolbox:ddn-l2"), L2(0.0), 200),
    (FMN(), ("adv_lib:fmn-l2", "foolbox:fmn-l2"), L2(0.0), 200),
    (FMN(), ("adv_lib:fmn-l1", "foolbox:fmn-l1"), L1(0.0), 200),
    (FMN(), ("adv_lib:fmn-linf", "foolbox:fmn-linf"), Linf(0.0), 200),
    (FMN(), ("adv_lib:fmn-l0", "foolbox:fmn-l0"), L0(0), 200),
    (SigmaZero(), ("adv_lib:sigma-zero-l0",), L0(0), 200),
    (EAD(), ("foolbox:ead-l1", "torchattacks:ead-l1"), L1(0.0), 100),
    (DeepFool(), ("adv_lib:deepfool-l2", "foolbox:deepfool-l2"), L2(0.0), 200),
    (DeepFool(), ("adv_lib:deepfool-linf", "foolbox:deepfool-linf"), Linf(0.0), 200),
]
# From scores or labels alone, with as many queries an example as theirs asks at most; None: as it
# was counted to ask, where it asks as much about each.
QUERIES = [
    (SPSA(steps=20, pairs=25, step=0.02), ("torchattacks:spsa-linf",), Linf(0.2), None, 60),
    (SimBA(1000), ("art:simba-l2",), L2(2.0), 500, 30),
    (
        HopSkipJump(initial_evals=100),
        ("art:hopskipjump-l2", "foolbox:hopskipjump-l2"),
        L2(3.0),
        None,
        30,
    ),
    (Boundary(), ("foolbox:boundary-l2",), L2(4.0), None, 30),
]

MODELS = ("plain", "hardened", "wong_kolter")
"""Functions of `models`."""


def pairs(table):
    """A test for each reference of each line."""
    return [
        pytest.param(
            strategy,
            theirs,
            *rest,
            id=f"{type(strategy).__name__}-{theirs}",
            marks=pytest.mark.skipif(not installed(theirs), reason=f"{theirs} is not installed"),
        )
        for strategy, names, *rest in table
        for theirs in names
    ]


@pytest.fixture(scope="module")
def found(model_named, digits):
    """What a strategy of ours leaves robust, once for all that it is compared with."""
    kept = {}

    def play(name, strategy, space, n):
        key = (name, repr(strategy), space, n)
        if key not in kept:
            data = digits[1][:n]
            play_ = nearest if space.eps == 0 else ours
            kept[key] = play_(strategy, model_named(name), data, space)
        return kept[key]

    return play


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("strategy", "theirs", "space", "n"), pairs(BALLS))
def test_robust_accuracy_is_no_higher(name, strategy, theirs, space, n, found, model_named, digits):
    """At most theirs + 0.5 points."""
    model, data = model_named(name), digits[1][:n]
    mine = robust(model, data, found(name, strategy, space, n), space)
    x = called(WITHIN[theirs], 0, model.module, data.x, data.y, space.eps)
    reached = robust(model, data, x, space)
    print(f"{name}: ours {mine:.4f}, {theirs} {reached:.4f}")
    assert mine <= reached + 0.005 + 1e-9  # half a point, whatever its last bit


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("strategy", "theirs", "space", "n"), pairs(NORMS))
def test_norms_and_failures_are_no_larger(
    name, strategy, theirs, space, n, found, model_named, digits
):
    """Median norm and failure rate at most theirs."""
    model, data = model_named(name), digits[1][:n]
    mine = distances(model, data, found(name, strategy, space, n), space)
    x = called(MINIMUM[theirs], 0, model.module, data.x, data.y)
    reached = distances(model, data, x, space)
    for who, size in (("ours", mine), (theirs, reached)):
        failed = float(size.isinf().double().mean())
        print(f"{name}: {who} median {float(size.median()):.4f}, failed {failed:.3f}")
    assert mine.isinf().sum() <= reached.isinf().sum()
    assert mine.median() <= reached.median()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("strategy", "theirs", "space", "queries", "n"), pairs(QUERIES))
def test_robust_accuracy_at_equal_queries_is_no_higher(
    name, strategy, theirs, space, queries, n, model_named, digits
):
    """At most theirs + 0.5 points, with no more queries of any example."""
    model, data = model_named(name), digits[1][:n]
    asked = Asked(model.module)
    x = called(ASKING[theirs], 0, asked, data.x, data.y, space.eps)
    reached = robust(model, data, x, space)
    queries = queries or asked.queries // n
    mine = robust(model, data, ours(strategy, model, data, space, queries), space)
    print(f"{name}: ours {mine:.4f}, {theirs} {reached:.4f}, {queries} queries")
    assert mine <= reached + 0.005 + 1e-9
