"""The payoff tensor of a roster: every attack on every model, whichever it was crafted for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from arena.empirical.crossplay import cross_play
from arena.empirical.game import PLAYERS, EmpiricalGame
from arena.empirical.protocol import STANDARD, Protocol
from arena.empirical.saved import save
from arena.estimate import Estimate, over_seeds
from arena.executors.executor import Executor
from arena.executors.processes import Processes
from arena.fields import Count, NonNegative
from arena.report import Table, save_records
from arena.store import Store
from arena.studies.analysis import RATIONALITY, analysis, concluding
from arena.studies.conclusion import conclude
from arena.studies.moves import Column, Roster
from arena.studies.roster import Attack, Defense
from arena.studies.study import Setup, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Payoffs(Study):
    """Every attack on every model: what each committed move is worth against each other one.

    A defense is trained once per seed. An attack that sees something of a model, or of how it is
    made, is crafted against each defense in turn: a column each. One that sees neither is one
    column. Moves come from matches of one round with the defender first, each in its own folder:
    a match that was played is not played again. Then all moves meet, on the same units. No cell is
    played twice, whatever study it was played for.

    Attributes:
        title: Of the report.
        defenses: By name, in the tables' order.
        attacks: By name, likewise.
        seeds: Games, counted from the configured seed: deals, models and attacks of their own.
        protocol: The protocol whose value is computed; None for the usual ones, side by side.
        cells: The least and the most that a cell can cost the defender. Values are then bracketed
            if cells are missing; None leaves out the models and attacks that lack them.
        rationality: Of quantal responses, a point of the path each, in units of 1 / payoff; an
            empty list shows none.
        executor: Plays matches and cells.

    Raises:
        ValueError: If the roster is not that of one game, see `Roster`, or the least that a cell
            can cost is more than the most.
    """

    title: str
    defenses: Mapping[str, Defense]
    attacks: Mapping[str, Attack]
    seeds: Count = 1
    protocol: Protocol | None = None
    cells: tuple[float, float] | None = None
    rationality: tuple[NonNegative, ...] = RATIONALITY
    executor: Executor = field(default_factory=Processes)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.roster
        if self.cells is not None and not self.cells[0] <= self.cells[1]:
            raise ValueError(
                f"Payoffs.cells = {list(self.cells)}: give the least that a cell can cost the "
                "defender, then the most"
            )

    @property
    def roster(self) -> Roster:
        """Attackers and defenders."""
        return Roster(self.defenses, self.attacks)

    def run(self, setup: Setup) -> None:
        """Plays matches and cells, prints the payoffs, and leaves tensors, tables and figures.

        What fails (a training that diverges, say) is named, and the others are kept.

        Raises:
            Unplayable: If the declarations of any match contradict each other; nothing was trained.
            ValueError: If the data or the game do not fit them.
            Refuted: If a mistake was found where a certificate says that there is none.
        """
        setup = setup if setup.store else replace(setup, store=Store(setup.folder / "models"))
        seeds = range(setup.seed, setup.seed + self.seeds)
        plays = self.roster.moves(setup, seeds, self.executor)
        new: list[int] = []
        games = cross_play(plays, setup.cells, self.executor, lambda _, n: new.append(n))
        for seed, game in zip(seeds, games, strict=True):
            save(game, setup.folder / f"game-seed-{seed}.safetensors")
        save_records(cell_records(games), setup.folder, "payoffs")
        protocols = STANDARD if self.protocol is None else (self.protocol,)
        found = concluding(
            partial(analysis, games, protocols, self.cells, setup.seed, self.rationality)
        )
        found.save(setup.folder)
        tables = payoff_tables(games, self.roster.columns, setup.game.unit)
        missing = sorted({cell for game in games for cell in game.missing})
        total = sum(len(game.models) * len(game.attacks) for game in games)
        remarks = [f"Missing: {a} on {m}: {_why(games, (m, a))}" for m, a in missing]
        remarks += [
            f"Cells:  {total}, {sum(new)} of them played now; the others were kept",
            f"Table:  {setup.folder / 'payoffs.csv'}",
            f"Tensor: {setup.folder / f'game-seed-{setup.seed}.safetensors'}",
        ]
        figures = {"payoffs": heat_map(games), **found.figures}
        conclude(setup.folder, self.title, [*tables, *found.tables], figures, remarks=remarks)


def _why(games: Sequence[EmpiricalGame], cell: tuple[str, str]) -> str:
    """Why a cell is missing for any seed; empty if it is not."""
    return next((game.missing[cell] for game in games if cell in game.missing), "")


def mean_cost(
    games: Sequence[EmpiricalGame], cell: tuple[str, str], player: str
) -> Estimate | None:
    """A cell's mean cost, over examples within seeds; None if it is missing for a seed."""
    if _why(games, cell):
        return None
    d, a = games[0].models.index(cell[0]), games[0].attacks.index(cell[1])
    return over_seeds([game.costs[player][d, a].astype(float) for game in games])


def payoff_tables(
    games: Sequence[EmpiricalGame], columns: Sequence[Column], unit: str = "example"
) -> list[Table]:
    """The defender's mean costs: a table of the blind attacks, and one for each that sees.

    `unit` is what the game scores, in one word.
    """
    kinds: dict[str, list[Column]] = {}
    for column in columns:
        kinds.setdefault("" if column.against is None else column.cell[1], []).append(column)
    tables = []
    for kind, those in kinds.items():
        rows = []
        for model in games[0].models:
            found = [mean_cost(games, (model, column.name), "defender") for column in those]
            rows.append([model, *("missing" if each is None else str(each) for each in found)])
        names = [column.cell[1] if column.against is None else column.against for column in those]
        title = f"{kind}, crafted against" if kind else "Attacks that see no defender"
        tables.append(Table(title, ["played on", *names], rows))
    spread = f"Student's t over {len(games)} seeds" if len(games) > 1 else f"over {unit}s"
    note = f"The defender's mean cost, ± 95 % ({spread}), on {games[0].examples} {unit}s per seed."
    tables[-1] = replace(tables[-1], note=note)
    return tables


def heat_map(games: Sequence[EmpiricalGame]) -> "Figure":
    """The defender's mean cost of every cell; boxed if the attack was crafted against the model."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    one = games[0]
    found = [[mean_cost(games, (m, a), "defender") for a in one.attacks] for m in one.models]
    costs = np.array([[np.nan if each is None else each.mean for each in row] for row in found])
    size = 3.2 + 0.46 * len(one.attacks), 2.2 + 0.42 * len(one.models)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(costs, cmap="viridis", aspect="auto")
    middle = (np.nanmin(costs) + np.nanmax(costs)) / 2 if np.isfinite(costs).any() else 0.0
    for d, a in np.ndindex(*costs.shape):
        known = np.isfinite(costs[d, a])
        text = f"{costs[d, a]:.2f}" if known else "?"
        dark = known and costs[d, a] < middle
        color = "white" if dark else "black"
        axes.text(a, d, text, ha="center", va="center", fontsize=7, color=color)
        if one.against[a] == one.models[d]:
            box = Rectangle((a - 0.47, d - 0.47), 0.94, 0.94, fill=False, edgecolor="red", lw=1.5)
            axes.add_patch(box)
    axes.set_xticks(range(len(one.attacks)), one.attacks, rotation=90, fontsize=8)
    axes.set_yticks(range(len(one.models)), one.models, fontsize=8)
    figure.colorbar(image, label="defender's mean cost")
    return figure


def cell_records(games: Sequence[EmpiricalGame]) -> list[dict[str, Any]]:
    """One record per cell: both mean costs with the half-widths of their 95 % intervals."""
    one, records = games[0], []
    for model in one.models:
        for attack, against in zip(one.attacks, one.against, strict=True):
            record: dict[str, Any] = {"model": model, "attack": attack, "against": against}
            for player in PLAYERS:
                found = mean_cost(games, (model, attack), player)
                record[f"{player}_cost"] = None if found is None else found.mean
                record[f"{player}_half"] = None if found is None else found.half
            record |= {"seeds": len(games), "examples": one.examples}
            records.append(record | {"missing": _why(games, (model, attack))})
    return records
