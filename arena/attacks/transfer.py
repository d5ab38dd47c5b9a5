"""Transfer: attack surrogates of one's own and send what fools them [F12, F13]."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from arena import chance
from arena.attacks.bpda import BPDA
from arena.attacks.pgd import PGD
from arena.attacks.wrapped import Wrapped
from arena.core import Classifier, Cost, Learner, Player, Strategy, Task, Turn
from arena.fields import Count
from arena.knowledge import Knowledge, Ledger, View, WhiteBox
from arena.learners.fitted import Fitted
from arena.learners.training import Trainer


@dataclass(frozen=True)
class Transfer(Strategy):
    """Trains surrogates and attacks them as a white box; the target is never asked anything.

    A surrogate is the defender's own algorithm, architecture and training data as far as the
    knowledge grants them; the attacker's guesses and its own data elsewhere. Of several, what is
    attacked is their combination with equal weights, as what fools many fools another (Liu et al.
    2017, 1611.02770, section 5): of the logits (1710.06081, equation 9: best there), of the
    probabilities (its equation 10; 1611.02770, equation 4) or of the losses (equation 11), which
    are the surrogates of the player's cost.

    Differs from equation 11 in that only the gradient is that of the mean loss: answers, and the
    loss by which an attack may rank its iterates, are those of the mean logits.

    Attributes:
        guess: The algorithm it assumes, with the architecture it assumes; or several.
        attack: What it does to the surrogates.
        seeds: How many are trained of each guess.
        combine: What is averaged over them.

    Raises:
        ValueError: On no guess.
    """

    guess: Trainer | Fitted | tuple[Trainer | Fitted, ...]
    attack: Strategy = PGD()
    seeds: Count = 1
    combine: Literal["logits", "probabilities", "losses"] = "logits"

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": View}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guess == ():
            raise ValueError("Transfer.guess is empty; give at least one algorithm to train")

    def check(self, player: Player) -> None:
        """Raises ValueError if the attack on the surrogates does not fit the player, or them."""
        self.attack.check(player)
        wanted = self.attack.needs.get("defender", View)
        for guess in self._guesses:
            if not issubclass(guess.exposes, wanted):
                raise ValueError(
                    f"Transfer.attack={type(self.attack).__name__} needs a {wanted.__name__} of "
                    f"its surrogate, and guess={type(guess).__name__} shows a "
                    f"{guess.exposes.__name__} at most; use an attack by scores, such as Square"
                )
        several = isinstance(self.guess, tuple) or self.seeds > 1
        if several and isinstance(self.attack, BPDA):
            raise ValueError(
                "BPDA looks into one module, and Transfer combines several; give it one guess and "
                "seeds=1, or another attack"
            )

    @property
    def _guesses(self) -> tuple[Trainer | Fitted, ...]:
        return self.guess if isinstance(self.guess, tuple) else (self.guess,)

    def respond(self, turn: Turn) -> Tensor:
        """What fools the surrogates most, [B, ...].

        Raises:
            ValueError: If there are no data to train a surrogate on.
        """
        own = self._view(self._surrogates(turn), turn)
        inner = replace(turn, look=lambda opponent, kind: own, closing=False)
        moved: Tensor = self.attack.respond(inner)
        return moved

    def _surrogates(self, turn: Turn) -> list[Classifier]:
        view = turn.see("defender", View)
        data = view.training_data if view.knows("training_data") else turn.aside
        if data is None:
            raise ValueError(
                "Transfer has no data to train a surrogate on: grant "
                "knowledge.training_data=true or set game.attacker_share above 0"
            )
        player, dealt = turn.player, turn.data
        task = Task(dealt.shape, dealt.classes, dealt.box, player.actions, player.cost)
        surrogates: list[Classifier] = []
        for k, guess in enumerate(self._guesses * self.seeds):
            algorithm = view.algorithm if view.knows("algorithm") else guess
            learner: Learner | None = (
                view.architecture
                if view.knows("architecture")
                else guess.facts().get("architecture")
            )
            # The first is the one that is trained where there is one alone.
            seed = chance.seed_of(turn.seed, "surrogate", *([k] if k else []))
            surrogates.append(algorithm.train(data, seed, task, learner, turn.store))
        return surrogates

    def _view(self, surrogates: list[Classifier], turn: Turn) -> WhiteBox:
        """What the attack sees in place of the defender."""
        knowledge = Knowledge.white_box()
        ledger = Ledger(len(turn.data), None, turn.data.x.device)
        if len(surrogates) == 1:
            return WhiteBox("surrogate", knowledge, {}, surrogates[0], ledger)
        ensemble = _Ensemble(surrogates, self.combine)
        view = WhiteBox("surrogates", knowledge, {}, ensemble, ledger)
        return _MeanLoss(view, surrogates, turn) if self.combine == "losses" else view


class _Ensemble(Classifier):
    """The mean of the logits or the log of the mean probabilities of several classifiers."""

    def __init__(self, members: list[Classifier], combine: str) -> None:
        self._members, self._combine = members, combine
        self.classes = members[0].classes

    def logits(self, x: Tensor) -> Tensor:
        each = torch.stack([member.logits(x) for member in self._members])
        if self._combine == "probabilities":
            return each.log_softmax(2).logsumexp(0) - math.log(len(each))
        return each.mean(0)


class _MeanLoss(Wrapped):
    """The mean logits, with the gradient of the mean loss."""

    def __init__(self, within: WhiteBox, members: list[Classifier], turn: Turn) -> None:
        super().__init__(within)
        self._members, self._cost, self._y = members, turn.player.cost, turn.data.y

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        return self._within.over(_ByLoss(self._members, self._cost, self._y[rows])).logits(x, rows)

    def on(self, rows: Tensor) -> Self:
        part = super().on(rows)
        part._y = self._y[rows]
        return part


class _ByLoss(_Ensemble):
    """The mean logits of inputs of true class `y` [B], with the gradient of their mean cost."""

    def __init__(self, members: list[Classifier], cost: Cost, y: Tensor) -> None:
        super().__init__(members, "logits")
        self._cost, self._y = cost, y

    def logits(self, x: Tensor) -> Tensor:
        each = [member.logits(x) for member in self._members]
        mean = torch.stack(each).mean(0).detach()
        if not x.requires_grad:
            return mean
        loss = torch.stack([self._loss(logits) for logits in each]).mean(0)
        # An attack sees logits, and derives its loss from them. They move along a direction v for
        # which that loss rises at rate 1, as far as the mean loss does: the chain rule returns the
        # mean loss's gradient, times <loss gradient, v> = 1, whatever the cost.
        at = mean.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self._loss(at).sum(), at)
        wide = slope.double()  # float32 squares of a sure model's slopes underflow
        along = (wide / wide.square().sum(1, keepdim=True).clamp(min=1e-60)).to(mean.dtype)
        return mean + along * (loss - loss.detach())[:, None]

    def _loss(self, logits: Tensor) -> Tensor:
        return self._cost.surrogate(logits, self._y, self.classes)
