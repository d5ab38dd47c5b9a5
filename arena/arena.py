"""The arena: the one loop that schedules players, enforces what they see, and scores rounds."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arena import chance
from arena.core import IllegalMove, Labelled, Move, MoveOrder, Player, Turn
from arena.games.game import Board, Game, Past, Scores
from arena.knowledge import BudgetExceeded, Ledger, Random, View
from arena.store import Store


class Unplayable(ValueError):
    """The declarations contradict each other; nothing was trained."""


@dataclass(frozen=True)
class Record:
    """What a round came to. Payoffs are minus mean costs; `seconds` is what each move took."""

    round: int
    order: str
    saw: dict[str, dict[str, int]]
    """For each player and opponent it looked at: the round of the move it saw (-1: opening)."""
    payoffs: dict[str, float]
    standard_errors: dict[str, float]
    zero_sum: bool
    """Whether the costs of all players sum to 0 on every example."""
    metrics: dict[str, float]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    costs: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """Per-example costs, float64 [n]; NaN where an example could not be scored."""
    exhibit: dict[str, Tensor] = field(default_factory=dict, repr=False)
    certified: Tensor | None = field(default=None, repr=False)
    """Whether [n] it is proved that no legal move makes the defender err; None: nothing is."""

    def outcomes(self) -> dict[str, Tensor]:
        """What is known example by example: each player's costs, and what is `certified`."""
        return self.costs | ({} if self.certified is None else {"certified": self.certified})

    def line(self) -> dict[str, Any]:
        """The record as plain data, for a line of JSON; tensors are kept elsewhere."""
        plain = dict(vars(self))
        del plain["costs"], plain["exhibit"], plain["certified"]
        return plain | {"notes": list(self.notes)}


class Arena:
    """Plays a game between players, round by round, in a declared order.

    The result is a function of the arguments alone: every turn's randomness is seeded by (seed,
    round, stage, player). Whether the match can be played is checked here, before anything trains.

    Args:
        game: The rules.
        players: The declarations, by the names that the game has for its players.
        order: Who moves when.
        seed: Seed of the deal and of every move.
        batch_size: The most examples that a strategy should put through a model at once.
        store: Where trained models are kept and found again; None: nowhere.

    Raises:
        Unplayable: If names do not match, a player never moves, or a strategy needs a view that
            the declarations do not grant.
    """

    def __init__(
        self,
        game: Game,
        players: Mapping[str, Player],
        order: MoveOrder,
        seed: int = 0,
        batch_size: int = 1024,
        store: Store | None = None,
    ) -> None:
        self.game = game
        self.players = dict(players)
        self.order = order
        self.seed = seed
        self.batch_size = batch_size
        self.store = store
        self.rounds_played = 0
        self._check_names()
        self._check_needs()
        self._past = Past({}, {}, {name: [] for name in self.players}, {})
        self._board: Board | None = None
        self._seconds: dict[str, float] = {}
        self._saw: dict[str, dict[str, int]] = {}
        self._notes: list[str] = []

    def _check_names(self) -> None:
        names = set(self.game.players)
        if set(self.players) != names:
            raise Unplayable(
                f"{type(self.game).__name__} is played by {sorted(names)}, "
                f"not by {sorted(self.players)}"
            )
        movers = {name for stage in self.order.stages for name in stage}
        if movers != names:
            raise Unplayable(
                f"order {self.order} moves {sorted(movers)}; the players are {sorted(names)}"
            )

    def _check_needs(self) -> None:
        for name, player in self.players.items():
            strategy = type(player.strategy).__name__
            for opponent, kind in player.strategy.needs.items():
                if opponent not in self.players:
                    raise Unplayable(f"{name}'s {strategy} looks at {opponent}, who is not here")
                if why := self.game.grants(player, self.players[opponent], kind):
                    raise Unplayable(
                        f"{name}'s {strategy} needs a {kind.__name__} of the {opponent}: {why}"
                    )
            try:
                player.strategy.check(player)
            except ValueError as error:
                raise Unplayable(f"{name}: {error}") from error

    @property
    def board(self) -> Board:
        """The game as dealt; loads the data when first asked for."""
        if self._board is None:
            self._board = self.game.deal(self.players, self.seed)
        return self._board

    def play(self, rounds: int) -> Iterator[Record]:
        """Plays up to round `rounds` (counted from the start of the match), a record each."""
        while self.rounds_played < rounds:
            yield self._round(self.rounds_played)

    def _round(self, number: int) -> Record:
        self._saw = {name: {} for name in self.players}
        self._seconds = dict.fromkeys(self.players, 0.0)
        self._notes = []
        if number == 0:
            self._open()
        for index, stage in enumerate(self.order.stages):
            moves = {name: self._move(name, number, index) for name in stage}
            for name, move in moves.items():
                self._stand(name, number, move)
        record = self._record(number, self.board.costs(self._past))
        self.rounds_played = number + 1
        return record

    def _open(self) -> None:
        """Sets the moves that stand before the first round, as far as somebody looks at them."""
        for name in self.players:
            move = self.board.opening(name)
            if move is not None:
                self._past.standing[name], self._past.made[name] = move, -1
        for name in self.players:
            if name not in self._past.standing and self._opening_is_seen(name):
                move = self._move(name, -1, 0)
                self._past.standing[name], self._past.made[name] = move, -1

    def _opening_is_seen(self, name: str) -> bool:
        for stage in self.order.stages:
            for other in stage:
                kind = self.players[other].strategy.needs.get(name, View)
                if other != name and kind is not View:
                    return True
            if name in stage:
                return False
        return False

    def _move(self, name: str, number: int, stage: int) -> Move:
        board, player = self.board, self.players[name]
        data = board.data(name)
        ledger = Ledger(len(data), player.knowledge.queries, data.x.device)
        turn = Turn(
            player=player,
            round=number,
            data=data,
            aside=board.aside(name),
            last=self._past.standing.get(name),
            seed=chance.seed_of(self.seed, number, stage, name),
            batch_size=self.batch_size,
            look=partial(self._look, name, ledger),
            closing=self._closes(name, stage),
            store=self.store,
        )
        # torch counts what is done to a tensor in place: a game whose data a player can change
        # would have to copy all of them for every turn.
        sealed = list(board.sealed(self._past))
        versions = [tensor._version for tensor in sealed]
        start = time.perf_counter()
        try:
            move = player.strategy.respond(turn)
        except BudgetExceeded as error:
            move = self._found(turn, board.opening(name))
            self._notes.append(f"{name} ran into its budget ({error}); what it had kept was played")
        if data.x.is_cuda:
            torch.cuda.synchronize(data.x.device)
        if versions != [tensor._version for tensor in sealed]:
            raise IllegalMove(
                f"{name}'s {type(player.strategy).__name__} changed, in place, data or a model "
                "that it was shown; work on a copy (x.clone())"
            )
        move = board.check(name, move)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
        self._past.ledgers[name] = ledger
        return move

    def _closes(self, name: str, stage: int) -> bool:
        """Whether every other player's last move of the round is made before `stage`, for good.

        A random classifier answers by other coins when it is scored.
        """
        last = {other: i for i, movers in enumerate(self.order.stages) for other in movers}
        return all(
            last[other] < stage and not isinstance(self._past.standing[other], Random)
            for other in self.players
            if other != name
        )

    @staticmethod
    def _found(turn: Turn, opening: Move | None) -> Move:
        """The opening move, with what the strategy kept in its place."""
        move: Any = opening
        for rows, x in turn.kept:
            move = move.index_copy(0, rows, x)
        return move

    def _look(self, viewer: str, ledger: Ledger, opponent: str, kind: type[View]) -> View:
        if opponent not in self.players or opponent == viewer:
            raise PermissionError(f"{viewer} cannot look at {opponent!r}")
        if why := self.game.grants(self.players[viewer], self.players[opponent], kind):
            raise PermissionError(f"{viewer} may not have a {kind.__name__} of {opponent}: {why}")
        if kind is not View:
            if opponent not in self._past.standing:
                raise PermissionError(
                    f"{viewer} looks at a move of the {opponent}, who has not moved; "
                    "declare it in the strategy's needs"
                )
            self._saw.setdefault(viewer, {})[opponent] = self._past.made[opponent]
        return self.board.view(viewer, opponent, kind, self._past, ledger)

    def _stand(self, name: str, number: int, move: Move) -> None:
        past = self._past
        past.standing[name] = move
        past.made[name] = number
        shown = self.board.reveal(name, move)
        if shown is not None:
            past.revealed[name].append(shown)

    def _record(self, number: int, scores: Scores) -> Record:
        payoffs, errors = {}, {}
        for name, cost in scores.costs.items():
            known = cost[~cost.isnan()]
            if len(known) == 0:
                raise ValueError(f"round {number}: no example could be scored; {scores.notes[0]}")
            payoffs[name] = 0.0 - float(known.mean())  # of a cost of 0, not -0.0
            spread = float(known.std()) if len(known) > 1 else 0.0
            errors[name] = spread / len(known) ** 0.5
        total = torch.stack(list(scores.costs.values())).sum(0).nan_to_num(0.0)
        return Record(
            round=number,
            order=str(self.order),
            saw={name: seen for name, seen in self._saw.items() if seen},
            payoffs=payoffs,
            standard_errors=errors,
            zero_sum=bool((total == 0).all()),
            metrics=scores.metrics,
            seconds=dict(self._seconds),
            notes=(*self._notes, *scores.notes),
            costs=scores.costs,
            exhibit=scores.exhibit,
            certified=scores.certified,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next round depends on, as tensors and plain data."""
        past = self._past
        return {
            "rounds_played": self.rounds_played,
            "made": dict(past.made),
            "standing": {name: self.board.pack(name, m) for name, m in past.standing.items()},
            "revealed": {
                name: [{"x": shown.x.cpu(), "y": shown.y.cpu()} for shown in batches]
                for name, batches in past.revealed.items()
            },
            "ledgers": {
                name: {"queries": book.queries.cpu(), "gradients": book.gradients.cpu()}
                for name, book in past.ledgers.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from where another arena with the same arguments was."""
        board = self.board
        self.rounds_played = state["rounds_played"]
        self._past = Past(
            standing={
                name: board.unpack(name, packed) for name, packed in state["standing"].items()
            },
            made=dict(state["made"]),
            revealed={
                name: [self._shown(name, batch) for batch in batches]
                for name, batches in state["revealed"].items()
            },
            ledgers={name: self._ledger(name, book) for name, book in state["ledgers"].items()},
        )

    def _shown(self, name: str, batch: Mapping[str, Tensor]) -> Labelled:
        like = self.board.data(name)
        return Labelled(batch["x"], batch["y"], like.classes, like.box).to(like.x.device)

    def _ledger(self, name: str, book: Mapping[str, Tensor]) -> Ledger:
        device = self.board.data(name).x.device
        ledger = Ledger(len(book["queries"]), self.players[name].knowledge.queries, device)
        ledger.queries, ledger.gradients = book["queries"].to(device), book["gradients"].to(device)
        return ledger
