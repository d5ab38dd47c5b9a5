"""Lets every attack meet every model: plays the missing cells and returns the whole game."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from arena.core import IllegalMove
from arena.empirical.cells import Cells, Costs, Found, whole
from arena.empirical.game import PLAYERS, EmpiricalGame
from arena.empirical.keys import Keys
from arena.empirical.moves import Failed, KeptMove
from arena.executors.executor import Executor
from arena.games.game import Board, Entry, Facts

_AT_ONCE = 128  # cells per item of work: as many are lost with a killed process
_FAILURES = (ValueError, OSError, NotImplementedError, IllegalMove)


@dataclass(frozen=True)
class CrossPlay:
    """Moves made on one deal, to meet each other.

    Attributes:
        board: Its rules score them.
        models: The defender's moves by name; of one that could not be made, why.
        attacks: The attacker's, likewise.
        against: The model that each attack was crafted against, of those that saw one.
    """

    board: Board
    models: Mapping[str, KeptMove | Failed]
    attacks: Mapping[str, KeptMove | Failed]
    against: Mapping[str, str] = field(default_factory=dict)

    def key(self, model: str, attack: str) -> bytes | None:
        """The key of the cell's costs; None: they are not kept."""
        committed, crafted = self.models[model], self.attacks[attack]
        if isinstance(committed, Failed) or isinstance(crafted, Failed):
            return None
        return self._keys.cell(committed, crafted)

    def facts_key(self, model: str) -> bytes | None:
        """The key of what is known of the model alone; None: that is not kept."""
        committed = self.models[model]
        return None if isinstance(committed, Failed) else self._keys.facts(committed)

    @cached_property
    def _keys(self) -> Keys:
        return Keys(self.board)


def cross_play(
    plays: Sequence[CrossPlay],
    cells: Cells,
    executor: Executor,
    tell: Callable[[str, int], None] = lambda model, played: None,
) -> list[EmpiricalGame]:
    """The game of each cross-play; cells that are kept are not played again.

    What a model alone decides is computed once for all its new cells (128 at most), and what an
    attack alone decides once per worker. A cell that cannot be played is named in the game's
    `missing`.

    Args:
        plays: Whose cells are played together, by the same workers.
        cells: Where costs are kept.
        executor: What plays them.
        tell: Called with a model's name and how many of its cells were just played and kept.

    Raises:
        Refuted: If a mistake was found where a certificate says that there is none.
        ChildProcessError: If a worker died; what was played before is kept.
    """
    tables = [_Table(play, cells) for play in plays]
    items = [(n, *item) for n, table in enumerate(tables) for item in table.items()]
    models = {(n, model): plays[n].models[model] for n, model, _ in items}
    new = dict.fromkeys((n, attack) for n, _, attacks in items for attack in attacks)
    attacking = {(n, attack): plays[n].attacks[attack] for n, attack in new}
    meet = _Meet(tuple(play.board for play in plays), models, attacking)
    for number, met in executor.results(meet, items):
        n, model, attacks = items[number]
        tables[n].add(model, met)
        tell(model, len(attacks))
    return [table.game() for table in tables]


@dataclass(frozen=True)
class _Met:
    """The results of a model's meetings with attacks.

    Attributes:
        facts: What is known of the model alone, [3, E]: the most that the defender can lose
            (infinity: unknown); 1 where that rests on a certificate; what it answers to what a
            probe may ask about, as far as there are E of those (`_SILENT`: unknown). None if the
            model failed.
        costs: By attack, [P, E].
        failed: By attack, why there are none.
    """

    facts: Costs | None
    costs: Mapping[str, Costs]
    failed: Mapping[str, str]


_SILENT = -9.0


@dataclass
class _Meet:
    """Scores a model against attacks, given by their names in one of several cross-plays."""

    boards: tuple[Board, ...]
    models: Mapping[tuple[int, str], KeptMove | Failed]
    attacks: Mapping[tuple[int, str], KeptMove | Failed]
    _prepared: dict[tuple[int, str], Entry] = field(default_factory=dict)

    def __call__(self, item: tuple[int, str, tuple[str, ...]]) -> _Met:
        number, name, attacks = item
        board, model = self.boards[number], self.models[number, name]
        assert isinstance(model, KeptMove)
        try:
            committed = board.prepared("defender", model.entry(board))
            facts = _facts(board, board.facts(committed))
        except _FAILURES as error:
            return _Met(None, {}, dict.fromkeys(attacks, str(error)))
        costs, failed = {}, {}
        for attack in attacks:
            try:
                moves = {"defender": committed, "attacker": self._attack(number, attack)}
                found = board.score(moves).costs
                costs[attack] = np.stack([found[player].numpy() for player in PLAYERS])
            except _FAILURES as error:
                failed[attack] = str(error)
        return _Met(facts, costs, failed)

    def _attack(self, number: int, name: str) -> Entry:
        """The attack, prepared when it is first met."""
        if (number, name) not in self._prepared:
            board, crafted = self.boards[number], self.attacks[number, name]
            assert isinstance(crafted, KeptMove)
            self._prepared[number, name] = board.prepared("attacker", crafted.entry(board))
        return self._prepared[number, name]


def _facts(board: Board, facts: Facts) -> Costs:
    found = np.stack([np.full(board.units, each) for each in (np.inf, 0.0, _SILENT)])
    if facts.most is not None:
        found[0], found[1] = facts.most.numpy(), float(facts.proved)
    if facts.answers is not None and len(facts.answers) == board.units:
        found[2] = facts.answers.numpy()
    return found


class _Table:
    """The cells of one cross-play, both kept and new."""

    def __init__(self, play: CrossPlay, cells: Cells) -> None:
        self._play, self._cells = play, cells
        self._names = [(model, attack) for model in play.models for attack in play.attacks]
        self._found = self._kept([play.key(*cell) for cell in self._names])
        facts = self._kept([play.facts_key(model) for model in play.models])
        models = list(play.models)
        self._facts = (
            {}
            if facts is None
            else {models[i]: facts.costs[:, place] for place, i in enumerate(facts.which)}
        )
        self._new: dict[tuple[str, str], Costs] = {}
        self._missing: dict[tuple[str, str], str] = {}
        for model, attack in self._names:
            for move in (play.models[model], play.attacks[attack]):
                if isinstance(move, Failed):
                    self._missing.setdefault((model, attack), move.why)

    def _kept(self, keys: Sequence[bytes | None]) -> Found | None:
        known = [i for i, key in enumerate(keys) if key is not None]
        found = self._cells.find([key for key in keys if key is not None])
        return None if found is None else Found(np.array(known)[found.which], found.costs)

    def items(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Models with the attacks that they have yet to meet; none if only facts are missing."""
        kept = set() if self._found is None else {self._names[i] for i in self._found.which}
        for model in self._play.models:
            cells = [(model, a) for a in self._play.attacks if (model, a) not in self._missing]
            new = [attack for _, attack in cells if (model, attack) not in kept]
            unknown = bool(cells) and model not in self._facts
            for start in range(0, max(len(new), unknown), _AT_ONCE):
                yield model, tuple(new[start : start + _AT_ONCE])

    def add(self, model: str, met: _Met) -> None:
        """Keeps the results of a model's meetings."""
        entries = {self._play.key(model, attack): costs for attack, costs in met.costs.items()}
        if met.facts is not None:
            self._facts[model] = met.facts
            entries[self._play.facts_key(model)] = met.facts
        self._cells.keep({key: costs for key, costs in entries.items() if key is not None})
        self._new |= {(model, attack): costs for attack, costs in met.costs.items()}
        self._missing |= {(model, attack): why for attack, why in met.failed.items()}

    def game(self) -> EmpiricalGame:
        """The game of all cells."""
        costs = self._costs()
        play = self._play
        shape = len(play.models), len(play.attacks), -1
        return EmpiricalGame(
            models=tuple(play.models),
            attacks=tuple(play.attacks),
            against=tuple(play.against.get(attack) for attack in play.attacks),
            costs={name: costs[p].reshape(shape) for p, name in enumerate(PLAYERS)},
            most=self._most(),
            missing=dict(self._missing),
            answers={
                model: facts[2].astype(np.int64)
                for model, facts in self._facts.items()
                if (facts[2] != _SILENT).all()
            },
        )

    def _costs(self) -> Costs:
        """The costs of all cells, [P, D A, E]; NaN where they are missing."""
        found = self._found
        if found is not None and len(found.which) == len(self._names):
            return found.costs
        in_bytes = found is None or found.costs.dtype == np.int8
        in_bytes &= not self._missing and all(map(whole, self._new.values()))
        size = len(PLAYERS), len(self._names), self._play.board.units
        costs = np.zeros(size, np.int8) if in_bytes else np.full(size, np.nan)
        if found is not None:
            costs[:, found.which] = found.costs
        place = {cell: i for i, cell in enumerate(self._names)}
        for cell, each in self._new.items():
            costs[:, place[cell]] = each
        return costs

    def _most(self) -> Costs | None:
        """What the defender can lose of each example at most, [D, E]; None: nothing is certified.

        A model that could not be made may lose as much as any other.
        """
        if not any((facts[1] > 0).any() for facts in self._facts.values()):
            return None
        worst = np.max([facts[0] for facts in self._facts.values()], axis=0)
        if not np.isfinite(worst).all():
            return None
        rows = [self._facts[m][0] if m in self._facts else worst for m in self._play.models]
        return np.stack(rows).astype(float)
