"""A roster's moves: the model of each defense, and the attacks made for it or for nobody."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from arena.empirical.crossplay import CrossPlay
from arena.empirical.moves import Failed, KeptMove, standing
from arena.executors.executor import Executor
from arena.games.game import Board, Measure
from arena.knowledge import Knowledge, View
from arena.studies.progress import progress
from arena.studies.roster import Attack, Cell, Defense, folder_of, match, played, versus
from arena.studies.study import Played, Setup

NOBODY = "nobody"
"""The opponent of an attack that looks at nobody."""

COMMITS = "commits"
"""The match in which a defense makes its model, with an attacker who does nothing."""


@dataclass(frozen=True)
class Column:
    """An attack as it was crafted.

    Attributes:
        name: In the game.
        attack: How.
        cell: The match that makes it.
        against: The defense whose model, or recipe, it saw; None: it saw none.
    """

    name: str
    attack: Attack
    cell: Cell
    against: str | None


def blind(attack: Attack) -> bool:
    """Whether it sees neither a defender's model nor how that is made."""
    kind = attack.strategy.needs.get("defender")
    recipe = attack.knowledge.algorithm or attack.knowledge.architecture
    return kind is None or (kind is View and not recipe)


def columns(defenses: Mapping[str, Defense], attacks: Mapping[str, Attack]) -> list[Column]:
    """The columns: one for each blind attack, else one for each defense that the attack meets."""
    own = [name for defense in defenses.values() for name in defense.attacks]
    found = []
    for name in dict.fromkeys([*attacks, *own]):
        common = attacks.get(name)
        if common is not None and blind(common):
            found.append(Column(name, common, (NOBODY, name), None))
        for defended, defense in defenses.items():
            made_for = defense.met(attacks).get(name)
            if made_for is not None and (made_for is not common or not blind(made_for)):
                cell = defended, name
                found.append(Column(f"{name} vs {defended}", made_for, cell, defended))
    return found


def check(defenses: Mapping[str, Defense], attacks: Mapping[str, Attack]) -> None:
    """Checks that the roster is that of one game.

    Raises:
        ValueError: If it is empty, if anybody has actions or costs of its own, or if names clash.
    """
    if not defenses or not attacks:
        raise ValueError("a roster needs at least one defense and one attack")
    own = [(f"{n} of {d}", a) for d, each in defenses.items() for n, a in each.attacks.items()]
    for name, attack in [*attacks.items(), *own]:
        if attack is not None and attack.actions is not None:
            _refuse(f"attack {name}", "actions", attack.actions)
    for name, defense in defenses.items():
        for what, value in (("actions", defense.actions), ("cost", defense.cost)):
            if value is not None:
                _refuse(f"defense {name}", what, value)
    found = columns(defenses, attacks)
    _check_names("defenses", [NOBODY, *defenses])
    _check_names("attacks", [COMMITS, *dict.fromkeys(column.cell[1] for column in found)])
    _check_names("attacks, each with its defense,", [column.name for column in found])


def _refuse(who: str, what: str, value: object) -> None:
    raise ValueError(
        f"{who} has {what} of its own, {value}: a game has one threat model; configure the "
        f"players' {what} for all, or run a study for each"
    )


def _check_names(what: str, names: list[str]) -> None:
    taken: dict[str, str] = {}
    for name in names:
        if (folder := folder_of(name)) in taken:
            raise ValueError(
                f"{what} {taken[folder]!r} and {name!r} cannot be told apart in folders and "
                "tables; rename one"
            )
        taken[folder] = name


Key = tuple[Cell, int]
"""A match: its cell and its seed."""


@dataclass(frozen=True)
class Roster:
    """Attackers and defenders of one game.

    Attributes:
        defenses: By name.
        attacks: By name.

    Raises:
        ValueError: If there are none, anybody has actions or costs of its own, or names clash.
    """

    defenses: Mapping[str, Defense]
    attacks: Mapping[str, Attack]

    def __post_init__(self) -> None:
        check(self.defenses, self.attacks)

    @property
    def columns(self) -> list[Column]:
        """The game's attacks."""
        return columns(self.defenses, self.attacks)

    def moves(self, setup: Setup, seeds: range, executor: Executor) -> list[CrossPlay]:
        """Plays what was not played yet, and gives the moves: a cross-play a seed.

        First every defense makes its model, and every blind attack its inputs; then the other
        attacks see the models that could be made. What could not be made says why.

        Raises:
            Unplayable: If declarations contradict each other; nothing was trained.
            ValueError: If the data do not fit them.
            Refuted: If a mistake was found where a certificate says that there is none.
        """
        first, second = (self._matches(setup, seeds, seeing) for seeing in (False, True))
        boards: dict[int, Board] = {}
        for (_, seed), each in first.items():
            if seed not in boards:  # data that do not fit are refused here
                boards[seed] = each.arena().board.lean()
        outcomes: dict[Key, Played | str] = {}
        with progress(len(first) + len(second)) as tell:
            for matches in (first, second):
                for (cell, seed), outcome in _played(matches, outcomes, executor):
                    outcomes[cell, seed] = outcome
                    name, words = _news(cell, outcome, setup.game.measures)
                    tell(f"{name}, seed {seed}", words)
        matches = {**first, **second}
        return [self._gathered(boards[seed], seed, matches, outcomes) for seed in seeds]

    def _matches(self, setup: Setup, seeds: range, seeing: bool) -> dict[Key, Setup]:
        """The matches of attacks that see models, or all others."""
        wanted = [
            (column.cell, column.attack)
            for column in self.columns
            if (column.against is not None) == seeing
        ]
        if not seeing:
            nothing = Attack(setup.game.idle("attacker"), Knowledge())
            wanted = [((name, COMMITS), nothing) for name in self.defenses] + wanted
        defenses = {**self.defenses, NOBODY: Defense(setup.game.idle("defender"))}
        return {
            (cell, seed): match(setup, cell, defenses[cell[0]], attack, seed)
            for cell, attack in wanted
            for seed in seeds
        }

    def _gathered(
        self,
        board: Board,
        seed: int,
        matches: Mapping[Key, Setup],
        outcomes: Mapping[Key, Played | str],
    ) -> CrossPlay:
        """The moves of one seed."""

        def moves(cell: Cell) -> dict[str, KeptMove] | Failed:
            outcome = outcomes[cell, seed]
            if isinstance(outcome, str):
                return Failed(outcome)
            played = matches[cell, seed]
            return standing(played.folder, played.players)

        models: dict[str, KeptMove | Failed] = {}
        for name in self.defenses:
            found = moves((name, COMMITS))
            models[name] = found if isinstance(found, Failed) else found["defender"]
        attacks: dict[str, KeptMove | Failed] = {}
        for column in self.columns:
            found = moves(column.cell)
            if isinstance(found, Failed):
                attacks[column.name] = found
            elif column.against and not _same(models[column.against], found["defender"]):
                attacks[column.name] = Failed(
                    "it met a model of other parameters than its defense committed to: training "
                    "is not a function of the seed here; keep models (models=FOLDER)"
                )
            else:
                attacks[column.name] = found["attacker"]
        against = {column.name: column.against for column in self.columns if column.against}
        return CrossPlay(board, models, attacks, against)


def _news(cell: Cell, outcome: Played | str, measures: Sequence[Measure]) -> tuple[str, str]:
    """Whose move a match was for, and what there is to say of it."""
    model, attack = cell
    name = {COMMITS: model}.get(attack, {NOBODY: attack}.get(model, versus(cell)))
    if isinstance(outcome, str):
        return name, f"failed: {outcome}"
    if model == NOBODY:
        return name, "crafted for nobody"
    line = outcome.lines[-1]
    shown = [each for each in measures if each.interval and each.name in line["metrics"]]
    words = [f"{each.title} {line['metrics'][each.name]:.3f}" for each in shown]
    return name, ", ".join(words) or f"defender's payoff {line['payoffs']['defender']:.3f}"


def _played(
    matches: Mapping[Key, Setup], outcomes: Mapping[Key, Played | str], executor: Executor
) -> Iterator[tuple[Key, Played | str]]:
    """What came of the matches; those of a defense that has no model are not played."""
    ready = {}
    for (cell, seed), each in matches.items():
        committed = outcomes.get(((cell[0], COMMITS), seed))
        if isinstance(committed, str):
            yield (cell, seed), committed
        else:
            ready[cell, seed] = each
    keys = list(ready)
    for number, outcome in executor.results(played, list(ready.values())):
        yield keys[number], outcome


def _same(one: KeptMove | Failed, other: KeptMove) -> bool:
    """Whether two moves have the same tensors, to the bit."""
    if isinstance(one, Failed) or one.packed.keys() != other.packed.keys():
        return False
    return all(torch.equal(tensor, other.packed[name]) for name, tensor in one.packed.items())
