"""Best responses by play: each player's own strategy answers every move of the other's mixture.

It asks nothing of a game but that it can be played, so it serves every game. A player's response to
a mixture is the best, against the whole mixture, of its strategy's replies to each move of it. That
is a search among few candidates: what it finds is a lower bound on what can be gained.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from arena.arena import Arena
from arena.empirical.cells import Cells, Costs
from arena.empirical.moves import KeptMove
from arena.empirical.oracles import Mixture, Oracles, Responding, checked
from arena.empirical.played import PlayedCells
from arena.fields import Count
from arena.games.game import Entry
from arena.store import fingerprint

_OTHER = {"attacker": "defender", "defender": "attacker"}


@dataclass(frozen=True)
class Replies(Responding):
    """Both players reply by the strategies that they were configured with.

    Attributes:
        tries: Replies to each move of the mixture, with seeds of their own.
        fresh_tries: As many for a fresh best response.
    """

    tries: Count = 1
    fresh_tries: Count = 3

    def oracles(self, arena: Arena, cells: Cells | None = None) -> "PlayedOracles":
        """The oracles of any match."""
        return PlayedOracles(arena, self, cells)


class PlayedOracles(Oracles):
    """Play as an oracle.

    Args:
        arena: The match.
        how: How both reply.
        cells: Where costs are kept; None: nowhere.
    """

    def __init__(self, arena: Arena, how: Replies, cells: Cells | None) -> None:
        self._arena, self._how = arena, how
        self._played = PlayedCells(arena.board, cells)

    @property
    def examples(self) -> int:
        """The game's units."""
        return self._arena.board.units

    def opening(self) -> tuple[str, str]:
        """The defender's reply to an idle attacker, and the attacker's opening.

        Where the game has no opening for the attacker, its reply to that model.
        """
        move = self._arena.board.opening("attacker")
        if move is None:
            model = self._reply("defender", {}, "opening")
            seen = {"defender": self._played.entry(model)}
            return model, self._reply("attacker", seen, "opening")
        nothing = torch.zeros(len(self._arena.data("attacker")), dtype=torch.int64)
        idle = self._added("attacker", Entry(move, nothing, nothing))
        return self._reply("defender", {"attacker": self._played.entry(idle)}, "opening"), idle

    def attack(self, models: Mixture, seed: int, fresh: bool = False) -> str:
        """The best of the attacker's replies to each model of the mixture."""
        return self._best("attacker", checked(models), seed, fresh)

    def defend(self, attacks: Mixture, seed: int, fresh: bool = False) -> str:
        """The best of the defender's replies to each attack of the mixture."""
        return self._best("defender", checked(attacks), seed, fresh)

    def costs(self, model: str, attack: str) -> Mapping[str, Costs]:
        """The costs of every unit, by the rules of the game."""
        return self._played.costs(model, attack)

    def _best(self, player: str, mixture: Mapping[str, float], seed: int, fresh: bool) -> str:
        tries = self._how.fresh_tries if fresh else self._how.tries
        other = _OTHER[player]
        replies = dict.fromkeys(
            self._reply(player, {other: self._played.entry(name)}, seed, name, number)
            for name in mixture
            for number in range(tries)
        )

        def cost(reply: str) -> float:
            total = 0.0
            for name, weight in mixture.items():
                cell = (reply, name) if player == "defender" else (name, reply)
                total += weight * float(self.costs(*cell)[player].mean())
            return total

        return min(replies, key=cost)

    def _reply(self, player: str, standing: Mapping[str, Entry], *parts: object) -> str:
        """The name of a reply."""
        return self._added(player, self._arena.reply(player, standing, *parts))

    def _added(self, player: str, entry: Entry) -> str:
        """Adds a move, named by its content."""
        strategy = self._arena.players[player].strategy
        packed = self._arena.board.pack(player, entry.move)
        kept = KeptMove(player, strategy, packed, entry.queries, entry.gradients)
        content = (packed[name] for name in sorted(packed))
        called = "model" if player == "defender" else "attack"
        name = f"{called} {fingerprint(*content, kept.queries, kept.gradients)[:16]}"
        self._played.add(name, kept)
        return name
