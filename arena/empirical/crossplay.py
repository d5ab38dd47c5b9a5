"""Every stored attack on every stored model: the cells that are missing, and the game of all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from arena.core import IllegalMove
from arena.empirical.cells import Cells, Costs, Found, whole
from arena.empirical.game import PLAYERS, EmpiricalGame
from arena.empirical.keys import Keys
from arena.empirical.moves import Crafted, Failed, Model
from arena.executors.executor import Executor
from arena.games.scoring import Scoring, Sent

_AT_ONCE = 128  # cells an item of work: what is lost with a killed process
_FAILURES = (ValueError, OSError, NotImplementedError, IllegalMove)


@dataclass(frozen=True)
class CrossPlay:
    """Moves made on one deal, to meet each other.

    Attributes:
        scoring: How.
        models: By name; of one that could not be made, why.
        attacks: By name, likewise.
        against: The model that each attack was crafted against, of those that saw one.
    """

    scoring: Scoring
    models: Mapping[str, Model | Failed]
    attacks: Mapping[str, Crafted | Failed]
    against: Mapping[str, str] = field(default_factory=dict)

    def sent(self, attack: str) -> Sent:
        """What is scored of an attack that could be made."""
        crafted, device = self.attacks[attack], self.scoring.dealt.x.device
        assert isinstance(crafted, Crafted)
        parts = crafted.x, crafted.queries, crafted.gradients
        return self.scoring.sent(*(part.to(device) for part in parts))

    def key(self, model: str, attack: str) -> bytes | None:
        """What the cell's costs are kept by; None: they are not."""
        committed, crafted = self.models[model], self.attacks[attack]
        if isinstance(committed, Failed) or isinstance(crafted, Failed):
            return None
        return self._keys.cell(committed, crafted)

    def facts_key(self, model: str) -> bytes | None:
        """What is known of the model alone is kept by this."""
        committed = self.models[model]
        return None if isinstance(committed, Failed) else self._keys.facts(committed)

    @cached_property
    def _keys(self) -> Keys:
        return Keys(self.scoring)


def cross_play(
    plays: Sequence[CrossPlay],
    cells: Cells,
    executor: Executor,
    tell: Callable[[str, int], None] = lambda model, played: None,
) -> list[EmpiricalGame]:
    """The game of each cross-play; cells that are kept are not played again.

    A model is made and asked about the inputs as dealt once for all its new cells (128 at most),
    each of which then takes a pass of the scored inputs. A cell that cannot be played is named in
    the game's `missing`. Costs of examples without a finite answer are no costs: their cell is
    missing, too.

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
    sent = {(n, attack): plays[n].sent(attack) for n, attack in new}
    meet = _Meet(tuple(play.scoring for play in plays), models, sent)
    for number, met in executor.results(meet, items):
        n, model, attacks = items[number]
        tables[n].add(model, met)
        tell(model, len(attacks))
    return [table.game() for table in tables]


@dataclass(frozen=True)
class _Met:
    """What came of a model's meetings.

    Attributes:
        facts: What the defender can lose at most (infinity: unknown), whether that is certified to
            be less (-1: nothing is certified), and the label of each input as it was dealt, [3, E];
            None if the model failed.
        costs: By attack, [P, E].
        failed: By attack, why there are none.
    """

    facts: Costs | None
    costs: Mapping[str, Costs]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class _Meet:
    """Lets a model meet attacks, by their names in one of several cross-plays."""

    scorings: tuple[Scoring, ...]
    models: Mapping[tuple[int, str], Model | Failed]
    sent: Mapping[tuple[int, str], Sent]

    def __call__(self, item: tuple[int, str, tuple[str, ...]]) -> _Met:
        number, name, attacks = item
        scoring, model = self.scorings[number], self.models[number, name]
        assert isinstance(model, Model)
        try:
            committed = scoring.committed(model.restored(scoring.dealt))
        except _FAILURES as error:
            return _Met(None, {}, dict.fromkeys(attacks, str(error)))
        costs, failed = {}, {}
        for attack in attacks:
            try:
                found = scoring.costs(scoring.outcome(committed, self.sent[number, attack]))
                costs[attack] = np.stack([found[player].numpy() for player in PLAYERS])
            except _FAILURES as error:
                failed[attack] = str(error)
        labels = committed.clean.labels.cpu().numpy()
        facts = np.stack([np.full(len(labels), np.inf), np.full(len(labels), -1.0), labels])
        if (most := scoring.most(committed)) is not None:
            facts[0] = most.numpy()
        if committed.certified is not None:
            facts[1] = committed.certified.cpu().numpy()
        return _Met(facts, costs, failed)


class _Table:
    """The cells of one cross-play: those that were kept, and those that are new."""

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
        """A model and attacks that it has to meet; no attack if it is to be asked alone."""
        kept = set() if self._found is None else {self._names[i] for i in self._found.which}
        for model in self._play.models:
            cells = [(model, a) for a in self._play.attacks if (model, a) not in self._missing]
            new = [attack for _, attack in cells if (model, attack) not in kept]
            unknown = bool(cells) and model not in self._facts
            for start in range(0, max(len(new), unknown), _AT_ONCE):
                yield model, tuple(new[start : start + _AT_ONCE])

    def add(self, model: str, met: _Met) -> None:
        """Keeps what came of meetings."""
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
        missing = dict(self._missing)
        if costs.dtype != np.int8:
            for i in np.flatnonzero(np.isnan(costs[0]).any(1)):
                n = int(np.isnan(costs[0, i]).sum())
                missing.setdefault(self._names[i], f"{n} answers were NaN or infinite")
        play = self._play
        shape = len(play.models), len(play.attacks), -1
        return EmpiricalGame(
            models=tuple(play.models),
            attacks=tuple(play.attacks),
            against=tuple(play.against.get(attack) for attack in play.attacks),
            costs={name: costs[p].reshape(shape) for p, name in enumerate(PLAYERS)},
            most=self._most(),
            missing=missing,
            answers={model: facts[2].astype(np.int64) for model, facts in self._facts.items()},
        )

    def _costs(self) -> Costs:
        """The costs of all cells, [P, D A, E]; NaN where they are missing."""
        found = self._found
        if found is not None and len(found.which) == len(self._names):
            return found.costs
        in_bytes = found is None or found.costs.dtype == np.int8
        in_bytes &= not self._missing and all(map(whole, self._new.values()))
        size = len(PLAYERS), len(self._names), len(self._play.scoring.scored)
        costs = np.zeros(size, np.int8) if in_bytes else np.full(size, np.nan)
        if found is not None:
            costs[:, found.which] = found.costs
        place = {cell: i for i, cell in enumerate(self._names)}
        for cell, each in self._new.items():
            costs[:, place[cell]] = each
        return costs

    def _most(self) -> Costs | None:
        """What the defender can lose of each example at most, [D, E]; None: nothing is certified.

        A model that could not be made may lose what the others may.
        """
        if not any((facts[1] >= 0).any() for facts in self._facts.values()):
            return None
        worst = np.max([facts[0] for facts in self._facts.values()], axis=0)
        if not np.isfinite(worst).all():
            return None
        rows = [self._facts[m][0] if m in self._facts else worst for m in self._play.models]
        return np.stack(rows).astype(float)
