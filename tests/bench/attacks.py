"""Ours beside every installed peer, over two floors.

In a repeat the floors come first, then ours, then the peers, and each is divided by the floors of
its own repeat. All but the times comes from one run before, in which libraries are imported too.
"""

import io
import math
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from omegaconf import OmegaConf

from arena import schema
from arena.actions.lp import L2, Linf, Lp
from arena.attacks.apgd import APGD
from arena.attacks.carlini_wagner import CarliniWagner
from arena.attacks.ddn import DDN
from arena.attacks.engines.borrowed import secluded
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.classification import decide
from arena.core import Player, Strategy, Turn
from arena.costs import ErrorRate, Negation
from arena.knowledge import Knowledge, WhiteBox
from arena.ledger import Ledger
from tests.parity import references
from tests.parity.references import MINIMUM, WITHIN

from . import floors, meters

TOGETHER = 1024
"""Examples that go through a model at once: what conf/config.yaml says."""


@dataclass(frozen=True)
class Contest:
    """One attack by several hands.

    Attributes:
        forwards, gradients: Passes of an example that nothing breaks, as published: the fixed
            floor. Synchronisations are per forward pass of these.
        ours: Strategies by name; the first, in fp32, says who leaves when: the active floor.
        peers: References of tests/parity by names that begin with the library's.
        nearest: Looks for the nearest mistake instead of one in the ball, and so nobody leaves.
        ball: The ball, if not the subject's in L-inf.
    """

    name: str
    forwards: int
    gradients: int
    ours: Mapping[str, Strategy]
    peers: Mapping[str, Callable] = field(default_factory=dict)
    nearest: bool = False
    ball: Lp | None = None

    def space(self, subject):
        """Where ours and the peers move; for the nearest mistake of no radius."""
        return L2(0.0) if self.nearest else self.ball or Linf(subject.eps)


def contests():
    """What is measured, by the names that the command line knows."""
    descent = {"steps": 40, "relative_step_size": 0.1}
    art = partial(references.art, batch_size=TOGETHER, verbose=False)
    return {
        "pgd": Contest(
            "PGD-40",
            *(40, 40),
            precisions(PGD, steps=40, step=0.1),
            named(WITHIN, "pgd-linf", "adv_lib", "torchattacks", "foolbox", "art"),
        ),
        "pgd5": Contest(
            "PGD-40, 5 restarts",
            *(200, 200),
            precisions(PGD, steps=40, step=0.1, restarts=5),
            {
                "adv_lib": references.adv_lib("pgd_linf", ball=True, restarts=5, **descent),
                "art": art("ProjectedGradientDescent", step=0.1, max_iter=40, num_random_init=5),
            },
        ),
        "apgd": Contest(
            "APGD-CE 100",
            *(100, 100),
            precisions(APGD, steps=100),
            named(WITHIN, "apgd-ce-linf", "adv_lib", "pyautoattack", "torchattacks"),
        ),
        "square": Contest(
            "Square 1000",
            *(1000, 0),
            {"arena": Square(steps=999)},  # and a query for the given input
            {
                "pyautoattack": references.autoattack("square", square__n_queries=1000),
                "torchattacks": references.torchattacks("Square", n_queries=1000),
                "art": art("SquareAttack", max_iter=1000),
            },
        ),
        "square_l2": Contest(
            "Square L2 2, 200",
            *(200, 0),
            {"arena": Square(steps=199)},
            {"pyautoattack": references.autoattack("square", norm="L2", square__n_queries=200)},
            ball=L2(2.0),
        ),
        "cw": Contest(
            "C&W L2, 5 x 100",
            *(500, 500),
            {"arena": CarliniWagner(steps=500, searches=5)},
            named(MINIMUM, "cw-l2", "adv_lib", "cleverhans", "foolbox"),
            nearest=True,
        ),
        "ddn": Contest(
            "DDN L2, 100",
            *(100, 100),
            {"arena": DDN(steps=100)},
            named(MINIMUM, "ddn-l2", "adv_lib", "foolbox"),
            nearest=True,
        ),
        "autoattack": Contest(
            "AutoAttack",
            *(100 + 900 + 900 + 5000, 100 + 900 + 900),  # APGD, nine targets twice, Square
            {"arena": listed("autoattack"), "arena cascade": listed("cascade")},
            named(WITHIN, "standard-linf", "pyautoattack"),
        ),
    }


def listed(name):
    """The strategy of a yaml."""
    path = Path(__file__).parents[2] / "conf" / "attacker" / "strategy" / f"{name}.yaml"
    return schema.build(OmegaConf.to_container(OmegaConf.load(path)))


def precisions(method, **options):
    """Our strategy in both precisions of its search."""
    return {"arena": method(**options), "arena bf16": method(precision="bfloat16", **options)}


def named(table, attack, *libraries):
    """Some libraries' references for one attack."""
    return {f"{library}:{attack}": table[f"{library}:{attack}"] for library in libraries}


def ours(subject, contest, strategy, ledger, model=None):
    """What a strategy of ours plays where the defender has moved, or finds nearest."""
    player = Player(contest.space(subject), Negation(ErrorRate()), Knowledge.white_box(), strategy)
    strategy.check(player)
    view = WhiteBox("defender", player.knowledge, {}, model or subject.model, ledger)
    look, data = (lambda opponent, kind: view), subject.data
    turn = Turn(player, 0, data, None, None, 0, TOGETHER, look, closing=True)
    return strategy.nearest(turn)[0] if contest.nearest else strategy.respond(turn)


def theirs(subject, contest, reference):
    """What a peer plays, whatever it prints."""
    ball = () if contest.nearest else (contest.space(subject).eps,)
    with (
        secluded(subject.data.x, 0),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        return reference(subject.module, subject.data.x, subject.data.y, *ball).detach()


def measured(subject, contest, repeats):
    """A row of figures for each of ours and of the installed peers."""
    n, device = len(subject.data), subject.data.x.device
    plans = {"fixed floor": floors.fixed(n, contest.forwards, contest.gradients)}
    if not contest.nearest:
        until = floors.Until(n, device)
        watched = floors.Watched(subject.model, subject.data, contest.space(subject), until)
        ours(subject, contest, next(iter(contest.ours.values())), until, watched)
        plans["active floor"] = until.plan()

    ledgers = {who: Ledger(n, None, device) for who in contest.ours}
    runs = {
        who: partial(ours, subject, contest, contest.ours[who], ledgers[who]) for who in ledgers
    }
    for who, reference in contest.peers.items():
        if references.installed(who):
            runs[who.partition(":")[0]] = partial(theirs, subject, contest, reference)

    rows = []
    for who, run in runs.items():
        with meters.observed(subject.module, device) as use:
            x = run()
        if who in ledgers:
            use.forwards = int(ledgers[who].queries.sum())
            use.gradients = int(ledgers[who].gradients.sum())
        rows.append(
            {"attack": contest.name, "by": who, "examples": n}
            | {"forwards": use.forwards / n, "gradients": use.gradients / n}
            | {"waits": use.waits and use.waits / contest.forwards, "MiB": use.memory}
            | judged(subject, contest, x)
        )
    for _ in range(repeats):
        bare = {name: floors.spent(subject, plan) for name, plan in plans.items()}
        for row in rows:
            took = meters.seconds(runs[row["by"]], device)
            row.setdefault("seconds", []).append(took)
            for name, floor in bare.items():
                row.setdefault(name, []).append(floor)
                row.setdefault(f"to {name}", []).append(took / floor)
    return rows


@torch.no_grad()
def judged(subject, contest, x):
    """What the moves `x` are worth, by one referee for all."""
    data, (low, high) = subject.data, subject.data.box
    answers = (decide(subject.model.logits(at), data.classes) for at in (data.x, x))
    clean, wrong = ((labels >= 0) & (labels != data.y) for labels in answers)
    beyond = float(torch.maximum(low - x, x - high).amax().clamp(min=0))
    if contest.nearest:
        size = contest.space(subject).size(data.x, x)
        size = torch.where(wrong, size, torch.inf).masked_fill(clean, 0.0)
        failed, median = float(size.isinf().double().mean()), float(size.median())
        median = median if math.isfinite(median) else None  # JSON knows no infinity
        return {"median norm": median, "failed": failed, "violation": beyond}
    robust = 1.0 - float((clean | wrong).double().mean())
    space = contest.space(subject)
    beyond = max(beyond, float(space.size(data.x.double(), x.double()).amax()) - space.eps)
    return {"robust accuracy": robust, "violation": beyond}
