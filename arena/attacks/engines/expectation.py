"""The best reply to a mixture of models whose weights are known and whose draw is hidden."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.averaged import Combined, averaged
from arena.attacks.engines.descent import Best
from arena.classification import Classifier, decide
from arena.core import Labelled, Player, Strategy, Turn
from arena.fields import Declared
from arena.knowledge import View, WhiteBox


@dataclass(frozen=True)
class Expectation(Declared):
    """Attacks a mixed commitment: seeks the inputs of least expected cost over all its models.

    A white-box attack sees one model. It is played in turn on the log of the mixture's mean
    probabilities (for the error rate, the expected error of answers drawn from the scores), on the
    models' mean loss, and on each model alone. Of the inputs found, each example keeps the one with
    the least expected cost over the mixture; ties are broken by the expected surrogate. Averages
    alone are not enough. Where models fail in different places, the gradient of the average leads
    to none of these places, and a randomised defense looks stronger than it is (Dbouk & Shanbhag
    2022, 2206.06737, go through the models one at a time).

    Attributes:
        attack: Any attack on a white box.
        averages: Which averages it is played on.
        alone: Whether it is also played on each model alone.
    """

    attack: Strategy
    averages: tuple[Combined, ...] = ("probabilities", "losses")
    alone: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.averages and not self.alone:
            raise ValueError("Expectation plays on no average and on no model alone; choose one")

    def check(self, player: Player) -> None:
        """Checks the attack.

        Raises:
            ValueError: If it needs more than a white box, or does not fit the player.
        """
        if any(not issubclass(WhiteBox, kind) for kind in self.attack.needs.values()):
            raise ValueError(f"{type(self.attack).__name__} is not an attack on a classifier")
        self.attack.check(player)

    def respond(self, models: Sequence[Classifier], weights: Sequence[float], turn: Turn) -> Tensor:
        """The inputs found, [B, ...]; `weights` are above 0 and sum to 1."""
        best = Best(turn.data.x)
        rows = torch.arange(len(turn.data), device=turn.data.x.device)
        for number, view in enumerate(self._views(models, weights, turn)):
            seed = chance.seed_of(turn.seed, number) if number else turn.seed
            x = self._played(replace(turn, seed=seed, closing=False), view)
            if len(models) == 1:
                return x
            best.offer(x, *expected(models, weights, turn, x), rows)
        return best.x

    def _played(self, turn: Turn, view: View) -> Tensor:
        x: Tensor = self.attack.respond(replace(turn, look=lambda opponent, kind: view))
        return x

    def _views(
        self, models: Sequence[Classifier], weights: Sequence[float], turn: Turn
    ) -> Iterator[WhiteBox]:
        if len(models) > 1:
            for combine in self.averages:
                yield averaged(models, weights, combine, turn)
        if self.alone or len(models) == 1:
            for model in models:
                yield averaged([model], [1.0], "logits", turn)


@torch.no_grad()
def expected(
    models: Sequence[Classifier], weights: Sequence[float], turn: Turn, x: Tensor
) -> tuple[Tensor, Tensor]:
    """The expected cost [B] of inputs `x` [B, ...] over a mixture, and the expected surrogate.

    An answer that is not there costs what the player's cost says.
    """
    cost = turn.player.cost
    first = torch.zeros(len(x), device=x.device)
    second = first.clone()
    for rows in turn.batches():
        given: Labelled = turn.data[rows]
        for model, weight in zip(models, weights, strict=True):
            logits = model.logits(x[rows])
            labels = decide(logits, model.classes)
            first[rows] += weight * cost.answered(labels, given.y)
            second[rows] += weight * cost.surrogate(logits, given.y, given.classes)
    return first, second.nan_to_num(torch.inf, torch.inf)
