"""Games on a hyperplane, seen by labels alone, or by scores: what tests of black boxes play."""

import torch
from torch import Tensor

from arena.actions.lp import Lp
from arena.core import Cost, Labelled, Player, Strategy, Task, Turn
from arena.costs import ErrorRate, Negation
from arena.knowledge import Answering, Knowledge, LabelView, ScoreView
from arena.ledger import Ledger

ERROR = Negation(of=ErrorRate())
BOX = (-3.0, 5.0)
VIEWS = {"labels": LabelView, "scores": ScoreView}


class Linear:
    """Labels of w x + b, added up in one order whatever the batch; notes what it was asked."""

    def __init__(self, w: Tensor, b: Tensor) -> None:
        self.w, self.b, self.classes = w, b, len(w)
        self.asked: list[Tensor] = []

    def logits(self, x: Tensor) -> Tensor:
        raise AssertionError("a boundary walk may see labels only")

    def labels(self, x: Tensor) -> Tensor:
        assert ((x >= BOX[0]) & (x <= BOX[1])).all()
        self.asked.append(x)
        return self.scores(x).argmax(1)

    def scores(self, x: Tensor) -> Tensor:
        return (x.flatten(1)[:, None].double() * self.w).sum(2) + self.b

    def published(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(1)

    @property
    def module(self) -> torch.nn.Module:
        raise PermissionError


def make(
    strategy: Strategy,
    model: Answering,
    x: Tensor,
    y: Tensor,
    space: Lp,
    cost: Cost = ERROR,
    *,
    answers: str = "labels",
    budget: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> tuple[Turn, Ledger]:
    knowledge = Knowledge.black_box(answers, budget)
    player = Player(space, cost, knowledge, strategy)
    strategy.check(player)
    data = Labelled(x, y, model.classes, space.box)
    task = Task(data.shape, model.classes, space.box, space, cost)
    ledger = Ledger(len(x), budget)
    view = VIEWS[answers]("defender", knowledge, {"task": task}, model, ledger)
    turn = Turn(
        player=player,
        round=0,
        data=data,
        aside=None,
        last=None,
        seed=seed,
        batch_size=batch_size,
        look=lambda *_: view,
    )
    return turn, ledger


def play(turn: Turn) -> Tensor:
    output = turn.player.strategy.respond(turn)
    assert turn.player.actions.contains(turn.data.x, output).all()
    return output


def nearest(turn: Turn) -> Tensor:
    """The distances [B] at which the search ends, before anything is projected."""
    view = turn.see("defender", LabelView)
    found = turn.each_batch(lambda rows: turn.player.strategy.search(turn, view, rows))
    return turn.player.actions.size(turn.data.x, found)


def problem(
    d: int = 25, n: int = 6, classes: int = 2, seed: int = 0
) -> tuple[Linear, Tensor, Tensor]:
    """A linear model that halves the box, inputs around its middle, and what it answers."""
    g = torch.Generator().manual_seed(seed)
    model = Linear(torch.randn(classes, d, generator=g), torch.zeros(classes))
    model.b = -model.scores(torch.ones(1, d))[0]
    x = 1 + torch.rand(n, d, generator=g) - 0.5
    return model, x, model.labels(x)


def radius(model: Linear, x: Tensor, dual: float) -> Tensor:
    """The distance of each input to the decision boundary of two classes."""
    scores = model.scores(x)
    return ((scores[:, 1] - scores[:, 0]).abs() / (model.w[1] - model.w[0]).norm(dual)).float()
