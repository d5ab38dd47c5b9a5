"""Several attacks, and for each example the best that any of them found."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from arena import chance
from arena.attacks.engines.descent import Best
from arena.attacks.engines.losses import barren, prices
from arena.classification import decide
from arena.core import Player, Strategy, Turn
from arena.knowledge import LabelView, ScoreView, View, WhiteBox


@dataclass(frozen=True)
class WorstCase(Strategy):
    """Runs attacks in turn, each on the examples that still stand: a worst case per example.

    An ensemble such as AutoAttack (Croce & Hein 2020, 2003.01690) is a list of attacks. Between two
    of them the model itself judges every move. An example leaves once no answer could cost less,
    provided that the model seen is the one that scores (`Turn.closing`). Of several moves, the one
    with the cheapest answer is played; ties are broken by the lowest surrogate. Takes one query per
    example before the first attack, and one after each attack that the example takes part in.

    Attributes:
        attacks: In the order in which they are tried: put the cheap ones first.
    """

    attacks: tuple[Strategy, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.attacks:
            raise ValueError("WorstCase.attacks is empty; list at least one attack")

    @property
    def needs(self) -> Mapping[str, type[View]]:
        """The widest view of each opponent that an attack needs; at least the defender's labels."""
        found: dict[str, type[View]] = {"defender": LabelView}
        for attack in self.attacks:
            for opponent, kind in attack.needs.items():
                if issubclass(kind, found.get(opponent, View)):
                    found[opponent] = kind
        return found

    def check(self, player: Player) -> None:
        """Checks every attack.

        Raises:
            ValueError: If one does not fit the player, naming it.
        """
        for attack in self.attacks:
            attack.check(player)

    def respond(self, turn: Turn) -> Tensor:
        """The best inputs that any attack found, [B, ...]."""
        best = Best(turn.data.x)
        rows = torch.arange(len(turn.data), device=turn.data.x.device)
        least, rows = self._offer(turn, best, rows, turn.data.x)
        for number, attack in enumerate(self.attacks):
            if turn.closing:
                rows = rows[best.first[rows] > least[rows]]
            if len(rows) == 0:
                break
            # A seed of its own: the same attack twice is a restart.
            part = replace(turn.on(rows), seed=chance.seed_of(turn.seed, number))
            _, rows = self._offer(turn, best, rows, attack.respond(part))
        return best.x

    def _offer(self, turn: Turn, best: Best, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Judges moves `x` [b, ...] for `rows` [b].

        Returns the least that any answer could cost, [B], and the `rows` that go on. For an example
        that has no query left to be judged by, the attack's move is taken unjudged, and the example
        leaves.
        """
        cost, data, kind = turn.player.cost, turn.data, self.needs["defender"]
        width = data.classes if issubclass(kind, ScoreView) else data.classes + 1
        if not issubclass(kind, WhiteBox):  # a white box counts passes, but never rations them
            paying = turn.see("defender", LabelView).remaining(rows) > 0
            best.x.index_copy_(0, rows[~paying], x[~paying])
            rows, x = rows[paying], x[paying]
        for at in torch.split(torch.arange(len(rows), device=rows.device), turn.batch_size):
            y = data.y[rows[at]]
            if issubclass(kind, ScoreView):
                scores = self._scores(turn, x[at], rows[at])
                width, labels = scores.shape[1], decide(scores, data.classes)
                second = cost.surrogate(scores, y, data.classes)
            else:
                labels = turn.see("defender", LabelView).labels(x[at], rows[at])
                second = torch.zeros(len(at), device=x.device)
            second = second.nan_to_num(torch.inf, torch.inf)  # no answer: the last of equals
            price = torch.where(barren(cost, labels, y), torch.inf, cost.answered(labels, y))
            best.offer(x[at], price, second, rows[at])
        return prices(cost, data.y, width, data.classes).amin(1), rows

    def _scores(self, turn: Turn, x: Tensor, rows: Tensor) -> Tensor:
        kind = self.needs["defender"]
        if issubclass(kind, WhiteBox):
            with torch.no_grad():
                return turn.see("defender", WhiteBox).logits(x, rows)
        return turn.see("defender", ScoreView).scores(x, rows)
