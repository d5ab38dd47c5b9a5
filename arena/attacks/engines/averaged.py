"""Several models seen as one: their average, for an attack that knows of a single model.

Members m have weights w_m that sum to 1. What can be averaged:

    logits          sum w_m z_m                    1710.06081, equation 9
    probabilities   log sum w_m p_m                its equation 10; 1611.02770, equation 4
    losses          the gradient of sum w_m l_m    its equation 11

Here l_m are the surrogates of the player's cost. With "losses", only the gradient is that of the
mean loss: the answers, and the loss by which an attack may rank its iterates, are those of the mean
logits.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor

from arena.attacks.engines.wrapped import WrappedView
from arena.classification import Classifier
from arena.core import Cost, Turn
from arena.knowledge import Knowledge, WhiteBox
from arena.ledger import Ledger

Combined = Literal["logits", "probabilities", "losses"]


def averaged(
    members: Sequence[Classifier], weights: Sequence[float], combine: Combined, turn: Turn
) -> WhiteBox:
    """A white box of the average model, for the player whose turn it is.

    Passes are charged to a ledger of its own: one pass for all members together.
    """
    knowledge = Knowledge.white_box()
    ledger = Ledger(len(turn.data), None, turn.data.x.device)
    if len(members) == 1:
        return WhiteBox("defender", knowledge, {}, members[0], ledger)
    average = _MeanOfMembers(members, weights, combine)
    view = WhiteBox("defender", knowledge, {}, average, ledger)
    return _MeanLoss(view, average, turn) if combine == "losses" else view


class _MeanOfMembers(Classifier):
    """The mean of the logits, or the log of the mean probabilities, of several classifiers."""

    def __init__(
        self, members: Sequence[Classifier], weights: Sequence[float], combine: str
    ) -> None:
        self.members, self.weights, self._combine = members, weights, combine
        self.classes = members[0].classes

    def logits(self, x: Tensor) -> Tensor:
        each = torch.stack([member.logits(x) for member in self.members])
        shares = self.shares(each)
        if self._combine == "probabilities":
            return (each.log_softmax(2) + shares.log()[:, None, None]).logsumexp(0)
        mean: Tensor = torch.tensordot(shares, each, dims=1)
        return mean

    def shares(self, like: Tensor) -> Tensor:
        """The weights [M], with the type and on the device of `like`."""
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device)


class _MeanLoss(WrappedView):
    """The mean logits, with the gradient of the mean loss."""

    def __init__(self, within: WhiteBox, average: _MeanOfMembers, turn: Turn) -> None:
        super().__init__(within)
        self._average, self._cost, self._y = average, turn.player.cost, turn.data.y

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        return self._within.over(_ByLoss(self._average, self._cost, self._y[rows])).logits(x, rows)

    def on(self, rows: Tensor) -> Self:
        part = super().on(rows)
        part._y = self._y[rows]
        return part


class _ByLoss(Classifier):
    """The mean logits of inputs of true class `y` [B], with the gradient of their mean cost."""

    def __init__(self, average: _MeanOfMembers, cost: Cost, y: Tensor) -> None:
        self._average, self._cost, self._y = average, cost, y
        self.classes = average.classes

    def logits(self, x: Tensor) -> Tensor:
        each = [member.logits(x) for member in self._average.members]
        shares = self._average.shares(each[0])
        mean: Tensor = torch.tensordot(shares, torch.stack(each), dims=1).detach()
        if not x.requires_grad:
            return mean
        losses = torch.stack([self._loss(logits) for logits in each])
        loss: Tensor = (shares[:, None] * losses).sum(0)
        # An attack sees logits and derives its loss from them. Here the logits move by the change
        # of the mean loss, in a direction v along which the attack's loss rises at rate 1. By the
        # chain rule the attack gets the gradient of the mean loss, times <loss gradient, v> = 1.
        at = mean.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self._loss(at).sum(), at)
        wide = slope.double()  # float32 squares of a sure model's slopes underflow
        along = (wide / wide.square().sum(1, keepdim=True).clamp(min=1e-60)).to(mean.dtype)
        moved: Tensor = mean + along * (loss - loss.detach())[:, None]
        return moved

    def _loss(self, logits: Tensor) -> Tensor:
        return self._cost.surrogate(logits, self._y, self.classes)
