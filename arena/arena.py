"""The arena: the one loop that schedules players, enforces what they see, and scores rounds."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from arena import chance
from arena.core import IllegalMove, Labelled, Move, MoveOrder, Player, Turn
from arena.games.game import Board, Entry, Game, Past
from arena.knowledge import Random, View
from arena.ledger import BudgetExceeded, Ledger, Meter
from arena.record import Record
from arena.seal import Seal, TorchState
from arena.store import Store


class Unplayable(ValueError):
    """The declarations contradict each other; nothing was trained."""


class Arena:
    """Plays a game between players, round by round, in a declared order.

    The result is a function of the arguments alone. The randomness of every turn is seeded by a
    one-way function of (the match's secret, round, stage, player), and the secret follows from the
    seed (`chance.secret`). Whether the match can be played is checked here, before anything trains.

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
        self._past = Past()
        self._board: Board | None = None
        self._seal = Seal()
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

    def data(self, player: str) -> Labelled:
        """What the player works on now: a defender's training data, an attacker's inputs."""
        return self.board.data(player, self._past)

    def derived_seed(self, *parts: object) -> int:
        """A seed for a purpose that `parts` name: a one-way function of the match's secret."""
        return chance.seed_of(chance.secret(self.seed), *parts)

    def play(self, rounds: int) -> Iterator[Record]:
        """Plays up to round `rounds` (counted from the start of the match), a record each."""
        while self.rounds_played < rounds:
            yield self._round(self.rounds_played)

    def reply(self, player: str, standing: Mapping[str, Entry], *parts: object) -> Entry:
        """The player's move if these moves stood, outside any round: enforced like any other.

        Args:
            player: Who moves.
            standing: The others' moves, as if they had been made in round 0.
            parts: Name the reply's randomness.

        Raises:
            IllegalMove: If the move is not legal.
            PermissionError: If the strategy looks at what it may not, or at what does not stand.
        """
        here = self._past, self._seconds, self._saw, self._notes
        self._saw, self._seconds, self._notes = {name: {} for name in self.players}, {}, []
        self._past = Past()
        try:
            for name, entry in standing.items():
                self._stand(name, 0, entry.move)
            move = self._move(player, 0, len(self.order.stages), ("reply", player, *parts))
            ledger = self._past.ledgers[player]
            return Entry(move, ledger.queries, ledger.gradients)
        finally:
            self._past, self._seconds, self._saw, self._notes = here

    def _round(self, number: int) -> Record:
        self._saw = {name: {} for name in self.players}
        self._seconds = dict.fromkeys(self.players, 0.0)
        self._notes = []
        if number == 0:
            self._open()
        self._close_books()
        for index, stage in enumerate(self.order.stages):
            moves = {name: self._move(name, number, index) for name in stage}
            for name, move in moves.items():
                self._stand(name, number, move)
        record = self._record(number)
        self.rounds_played = number + 1
        return record

    def _close_books(self) -> None:
        """Begins a round: what was asked before counts as spent."""
        past = self._past
        for name, ledger in past.ledgers.items():
            if self.players[name].knowledge.queries_per == "match":
                past.spent[name] = ledger.queries + past.spent.get(name, 0)
        past.ledgers = {}

    def _open(self) -> None:
        """Sets the moves that stand before the first round, if anybody looks at them."""
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

    def _move(
        self, name: str, number: int, stage: int, parts: tuple[object, ...] | None = None
    ) -> Move:
        board, player = self.board, self.players[name]
        data = board.data(name, self._past)
        parts = parts or (number, stage, name)
        seed = self.derived_seed(*parts)
        ledger = self._books(name, data, self.derived_seed("answers", *parts))
        meter = Meter(ledger)
        turn = Turn(
            player=player,
            round=number,
            data=data,
            aside=board.aside(name),
            last=self._past.standing.get(name),
            seed=seed,
            batch_size=self.batch_size,
            look=partial(self._look, name, ledger, meter),
            closing=self._closes(name, stage),
            store=self.store,
        )
        sealed = board.sealed(self._past)
        if all(data is not part for part in vars(board).values()):  # made for this turn
            sealed[f"the {name}'s data"] = data
        self._seal.close(sealed)
        state = TorchState.now()
        start = time.perf_counter()
        try:
            move = board.asked(name, turn)
        except BudgetExceeded as error:
            move = self._found(name, turn)
            self._notes.append(f"{name} ran into its budget ({error}); what it had kept was played")
        finally:
            meter.stop()
            changed = state.restore()
        if data.x.is_cuda:
            torch.cuda.synchronize(data.x.device)
        self._report(name, ledger, changed)
        move = board.check(name, move)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
        self._past.ledgers[name] = ledger
        return move

    def _books(self, name: str, data: Labelled, coins: int) -> Ledger:
        """The player's ledger of this round: what its earlier moves of the round asked counts."""
        if name in self._past.ledgers:
            return self._past.ledgers[name]
        knowledge = self.players[name].knowledge
        spent = self._past.spent.get(name) if knowledge.queries_per == "match" else None
        return Ledger(len(data), knowledge.queries, data.x.device, spent, coins)

    def _report(self, name: str, ledger: Ledger, changed: Sequence[str]) -> None:
        """Says what a turn did that it should not have, or raises.

        Raises:
            IllegalMove: If it changed anything that it was shown.
        """
        strategy = type(self.players[name].strategy).__name__
        if broken := self._seal.broken():
            raise IllegalMove(
                f"{name}'s {strategy} changed {' and '.join(broken)} in place; work on a copy "
                "(x.clone(), copy.deepcopy(module))"
            )
        if changed:
            self._notes.append(
                f"{name}'s {strategy} left torch's {', '.join(changed)} changed; restored"
            )
        if ledger.unattributed:
            self._notes.append(
                f"{name}'s {strategy} passed {ledger.unattributed} inputs through the opponent's "
                "module without naming their examples: not among the queries"
            )

    def _closes(self, name: str, stage: int) -> bool:
        """Whether all other players have made their last move of the round before `stage`.

        Against a random classifier never: it is scored with other coins than it answers with.
        """
        last = {other: i for i, movers in enumerate(self.order.stages) for other in movers}
        standing = self._past.standing
        return all(
            other in standing and last[other] < stage and not isinstance(standing[other], Random)
            for other in self.players
            if other != name
        )

    def _found(self, name: str, turn: Turn) -> Move:
        """The inputs that the strategy kept; elsewhere its move of this round, or the opening."""
        made = self._past.made.get(name)
        move: Any = turn.last if made == turn.round else self.board.opening(name)
        if move is None:
            raise IllegalMove(
                f"{name} ran into its budget, and {type(self.game).__name__} has no opening that "
                "it could play instead; ask less, or raise knowledge.queries"
            )
        for rows, x in turn.kept:
            move = move.index_copy(0, rows, x)
        return move

    def _look(
        self, viewer: str, ledger: Ledger, meter: Meter, opponent: str, kind: type[View]
    ) -> View:
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
        return self.board.view(viewer, opponent, kind, self._past, ledger, meter)

    def _stand(self, name: str, number: int, move: Move) -> None:
        past = self._past
        past.standing[name] = move
        past.made[name] = number
        others = (player for other, player in self.players.items() if other != name)
        if not any(player.knowledge.samples for player in others):
            return
        shown = self.board.reveal(name, move)
        if shown is not None:
            past.revealed.setdefault(name, []).append(shown)

    def _record(self, number: int) -> Record:
        moves = {
            name: self.board.prepared(name, entry) for name, entry in self._past.entries().items()
        }
        scores = self.board.score(moves)
        described = self.board.describe(moves, scores)
        payoffs, errors = {}, {}
        for name, cost in scores.costs.items():
            if not bool(cost.isfinite().all()):
                raise ValueError(
                    f"round {number}: the {name}'s cost of unit "
                    f"{int((~cost.isfinite()).nonzero()[0, 0])} is not finite; "
                    f"{type(self.game).__name__} must say what such a unit costs"
                )
            payoffs[name] = 0.0 - float(cost.mean())  # of a cost of 0, not -0.0
            spread = float(cost.std()) if len(cost) > 1 else 0.0
            errors[name] = spread / len(cost) ** 0.5
        total = torch.stack(list(scores.costs.values())).sum(0)
        return Record(
            round=number,
            order=str(self.order),
            saw={name: seen for name, seen in self._saw.items() if seen},
            payoffs=payoffs,
            standard_errors=errors,
            zero_sum=bool((total == 0).all()),
            metrics=dict(described.metrics),
            seconds=dict(self._seconds),
            notes=(*self._notes, *described.notes),
            costs=dict(scores.costs),
            exhibit=dict(described.exhibit),
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
            "spent": {name: asked.cpu() for name, asked in past.spent.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the state of another arena that was made with the same arguments."""
        board = self.board
        self.rounds_played = state["rounds_played"]
        self._past = Past(
            standing={
                name: board.unpack(name, packed, self.players[name].strategy)
                for name, packed in state["standing"].items()
            },
            made=dict(state["made"]),
        )
        self._past.revealed = {
            name: [self._shown(name, batch) for batch in batches]
            for name, batches in state["revealed"].items()
        }
        self._past.ledgers = {
            name: self._ledger(name, book) for name, book in state["ledgers"].items()
        }
        self._past.spent = {
            name: asked.to(self.data(name).x.device) for name, asked in state["spent"].items()
        }

    def _shown(self, name: str, batch: Mapping[str, Tensor]) -> Labelled:
        like = self.data(name)
        return Labelled(batch["x"], batch["y"], like.classes, like.box).to(like.x.device)

    def _ledger(self, name: str, book: Mapping[str, Tensor]) -> Ledger:
        device = self.data(name).x.device
        ledger = Ledger(len(book["queries"]), self.players[name].knowledge.queries, device)
        ledger.queries, ledger.gradients = book["queries"].to(device), book["gradients"].to(device)
        return ledger
