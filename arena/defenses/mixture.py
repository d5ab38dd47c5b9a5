"""A mixture of trained defenders: a member drawn at random answers each query."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from arena import chance
from arena.classification import Classifier
from arena.core import Labelled, Player, Strategy, Turn
from arena.defenses.weights import check_weights, cumulative, drawn
from arena.defenses.wrapped import check_within
from arena.fields import NonNegative
from arena.knowledge import View, WhiteBox
from arena.learners.preprocessing import answered, coins
from arena.training.classifiers import LOG_ZERO, committed


@dataclass(frozen=True)
class Mixture(Strategy):
    """Commits to a mixed strategy over the models of other strategies [F8].

    One model answers each query. It is drawn by the weights, from the query's own random key; the
    other models are not evaluated. To attack the mixture is to attack the expectation (EOT, or any
    average over passes). Each member trains with its own seed, so the same recipe several times
    makes a random ensemble. If any member may refuse, the mixture may.

    Attributes:
        of: The strategies, which must commit to modules.
        weights: The probability of each strategy.

    Raises:
        ValueError: If the numbers of strategies and weights differ, or the weights do not sum to 1
            within 1e-6.
    """

    of: tuple[Strategy, ...]
    weights: tuple[NonNegative, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.of or len(self.of) != len(self.weights):
            raise ValueError(
                f"Mixture has {len(self.of)} strategies and {len(self.weights)} weights; give at "
                "least one strategy, and a weight for each"
            )
        check_weights(self.weights, "Mixture")

    @property
    def needs(self) -> Mapping[str, type[View]]:
        """For each opponent, the widest view that any member needs."""
        most: dict[str, type[View]] = {}
        for member in self.of:
            for opponent, kind in member.needs.items():
                most[opponent] = max(most.get(opponent, View), kind, key=lambda k: len(k.mro()))
        return most

    @property
    def exposes(self) -> type[View]:
        """A white box: the mixture is a module."""
        return WhiteBox

    def facts(self) -> dict[str, Any]:
        """The facts that all members have in common, such as the recipe of a random ensemble."""
        first, *others = (member.facts() for member in self.of)
        return {
            name: fact
            for name, fact in first.items()
            if all(name in other and other[name] == fact for other in others)
        }

    def check(self, player: Player) -> None:
        """Raises ValueError if a member commits to no module, or does not fit."""
        for member in self.of:
            check_within(member, self, player)

    def respond(self, turn: Turn) -> Classifier:
        """The mixture of the models that the members commit to."""
        seeds = (chance.seed_of(turn.seed, "member", number) for number in range(len(self.of)))
        moves = [
            member.respond(replace(turn, seed=seed))
            for member, seed in zip(self.of, seeds, strict=True)
        ]
        return self._mixed(moves, turn.data)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The mixture with these parameters and buffers."""
        moves = []
        for number, member in enumerate(self.of):
            start = f"members.{number}."
            own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            moves.append(member.restore(own, data))
        return self._mixed(moves, data)

    def _mixed(self, moves: list[Classifier], data: Labelled) -> Classifier:
        members = [move.module for move in moves]
        with torch.no_grad():
            width = max(answered(m, data.x[:1], coins(data.x[:1], False)).shape[1] for m in members)
        module = MixedModule(members, self.weights, width).to(data.x.device)
        return committed(module, data.classes)


class MixedModule(nn.Module):
    """Answers each input with one of its members, drawn by the weights."""

    random = True
    edges: Tensor

    def __init__(self, members: list[nn.Module], weights: tuple[float, ...], width: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.width = width
        # Not part of the state: the weights are declared.
        self.register_buffer("edges", cumulative(weights), persistent=False)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, width] of `x` [B, ...] by the member drawn for each input."""
        key = coins(x, self.training) if key is None else key
        member = drawn(self.edges, chance.fold(key, 0))
        own = chance.fold(key, 1)
        rows = [(member == number).nonzero().squeeze(1) for number in range(len(self.members))]
        answers = [
            self._wide(answered(one, x[part], own[part]))
            for one, part in zip(self.members, rows, strict=True)
            if len(part)
        ]
        if not answers:
            return x.new_zeros(0, self.width)
        return torch.cat(answers)[torch.cat(rows).argsort()]

    def _wide(self, logits: Tensor) -> Tensor:
        """Log-probabilities [B, width], with a column for refusals if any member has one."""
        scores = logits.log_softmax(1)
        return pad(scores, (0, self.width - scores.shape[1]), value=LOG_ZERO)
