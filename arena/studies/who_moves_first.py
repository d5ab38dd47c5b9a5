"""Who moves first [F9, F15]: the same players under every order, with the price of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from arena.core import MoveOrder
from arena.empirical.crossplay import cross_play
from arena.empirical.game import EmpiricalGame
from arena.empirical.rounds import rounds_played
from arena.estimate import Estimate, over_seeds
from arena.executors.executor import Serial
from arena.fields import Count, NonNegative
from arena.games.game import Measure
from arena.report import Table, number
from arena.studies.analysis import RATIONALITY, analysis, concluding
from arena.studies.conclusion import conclude
from arena.studies.progress import progress
from arena.studies.study import Played, Setup, Study, play

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDERS = {
    "attacker_first": MoveOrder.attacker_first(),
    "simultaneous": MoveOrder.simultaneous(),
    "defender_first": MoveOrder.defender_first(),
}


@dataclass(frozen=True)
class WhoMovesFirst(Study):
    """Plays the match under each order, over several seeds, and compares.

    Only the order differs, and with it what each player sees when it moves. Averages are over all
    rounds. Intervals are Student's t over seeds, paired by seed for prices. At the end every attack
    meets every model, those of other rounds and orders included, and that game is analysed: its
    values say what the order is worth to players who choose among the moves that were found.

    Attributes:
        rounds: Rounds per match.
        seeds: Matches per order, counted from the configured seed.
        rationality: The rationalities at which quantal responses are shown, in units of
            1 / payoff; an empty list shows none.
    """

    rounds: Count = 4
    seeds: Count = 3
    rationality: tuple[NonNegative, ...] = RATIONALITY

    def run(self, setup: Setup) -> None:
        """Plays all matches, prints both tables, and writes figure and report."""
        total = len(ORDERS) * self.seeds * self.rounds
        played: dict[str, list[Played]] = {name: [] for name in ORDERS}
        with progress(total) as tell:
            for seed in range(setup.seed, setup.seed + self.seeds):
                for name, order in ORDERS.items():
                    folder = setup.folder / name / f"seed-{seed}"
                    match = setup.variant(order, seed, folder)
                    label = f"{name.replace('_', ' ')}, seed {seed}"
                    kept = play(match, self.rounds, partial(tell, label), keep=True)
                    played[name].append(kept)
        games = self._games(setup, played)
        found = concluding(partial(analysis, games, seed=setup.seed, rationality=self.rationality))
        found.save(setup.folder)
        measures = measured(setup.game.measures, played)
        tables = [orders_table(played, measures), prices_table(played), *found.tables]
        figures = {"error_by_round": rounds_figure(played, measures), **found.figures}
        fresh = sum(match.fresh for matches in played.values() for match in matches)
        already = f"{setup.folder} already held all {total} rounds; nothing was played."
        remarks = [] if fresh else [already]
        conclude(setup.folder, "Who moves first", tables, figures, remarks=remarks)

    def _games(self, setup: Setup, played: Mapping[str, list[Played]]) -> list[EmpiricalGame]:
        """The cross-play of all rounds of all orders, one game per seed."""
        plays = []
        for k in range(self.seeds):
            seed = setup.seed + k
            matches = {
                name.replace("_", " "): (setup.folder / name / f"seed-{seed}", kept[k].lines)
                for name, kept in played.items()
            }
            board = setup.variant(setup.order, seed, setup.folder).arena().board
            plays.append(rounds_played(board, setup.players, matches))
        return cross_play(plays, setup.cells, Serial())


def measured(
    measures: Sequence[Measure], played: Mapping[str, list[Played]]
) -> tuple[Measure, ...]:
    """The measures of the game that its rounds have."""
    metrics = next(iter(played.values()))[0].lines[0]["metrics"]
    return tuple(each for each in measures if each.name in metrics)


def payoff(played: list[Played], player: str) -> list[np.ndarray[Any, Any]]:
    """Per seed, each example's payoff averaged over the rounds, [n]."""
    return [-match.outcomes[player].mean(axis=0) for match in played]


def metric(played: list[Played], name: str) -> np.ndarray[Any, Any]:
    """A metric by seed and round, [seeds, rounds]."""
    return np.array([[line["metrics"][name] for line in match.lines] for match in played])


def mean_metric(played: list[Played], name: str) -> Estimate:
    """A metric's mean over rounds and seeds."""
    return over_seeds(list(metric(played, name).mean(1, keepdims=True)))


def orders_table(played: Mapping[str, list[Played]], measures: Sequence[Measure]) -> Table:
    """A line per order: the game's measures, both payoffs, and the time that a match took."""

    def shown(matches: list[Played], wanted: bool) -> list[str]:
        found = [(each, mean_metric(matches, each.name)) for each in measures]
        return [
            str(mean) if each.interval else number(mean.mean, each.digits)
            for each, mean in found
            if each.interval == wanted
        ]

    rows = []
    for name, matches in played.items():
        seconds = [sum(sum(line["seconds"].values()) for line in m.lines) for m in matches]
        rows.append(
            [
                name.replace("_", " "),
                *shown(matches, True),
                str(over_seeds(payoff(matches, "attacker"))),
                str(over_seeds(payoff(matches, "defender"))),
                *shown(matches, False),
                number(float(np.mean(seconds)), 1),
            ]
        )
    one = next(iter(played.values()))
    counted = [each.title for each in measures if not each.interval]
    per_round = f"{' and '.join(counted)} per example and round, " if counted else ""
    return Table(
        "Who moves first",
        [
            "order",
            *(each.title for each in measures if each.interval),
            "attacker's payoff",
            "defender's payoff",
            *counted,
            "seconds",
        ],
        rows,
        f"Means over {len(one[0].lines)} rounds, ± 95 % (Student's t over {len(one)} seeds); "
        f"{per_round}seconds per match.",
    )


def price(first: list[Played], other: list[Played], player: str) -> Estimate:
    """The payoff that the player loses by going first instead, paired by seed and example."""
    pairs = zip(payoff(other, player), payoff(first, player), strict=True)
    return over_seeds([without - with_ for without, with_ in pairs])


def prices_table(played: Mapping[str, list[Played]]) -> Table:
    """The price of moving first, for each player."""
    rows = []
    for player, other in (("attacker", "defender"), ("defender", "attacker")):
        first, second = played[f"{player}_first"], played[f"{other}_first"]
        rows.append(
            [
                player,
                str(price(first, played["simultaneous"], player)),
                str(price(first, second, player)),
            ]
        )
    return Table(
        "The price of moving first",
        ["player", "against moving at once", "against moving second"],
        rows,
        "Payoff lost by committing first, ± 95 %, paired by seed; positive: going first costs.",
    )


def rounds_figure(played: Mapping[str, list[Played]], measures: Sequence[Measure]) -> "Figure":
    """The game's first measure by round, one curve per order, with 95 % bands over seeds.

    Where the game has none, the defender's payoff.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    lowest = highest = 0.0
    for name, matches in played.items():
        values = metric(matches, measures[0].name) if measures else payoffs_by_round(matches)
        rounds = np.arange(values.shape[1])
        bands = [over_seeds(list(values[:, [t]])) for t in rounds]
        middle = np.array([band.mean for band in bands])
        lowest, highest = min(lowest, middle.min()), max(highest, middle.max())
        (line,) = axes.plot(rounds, middle, marker="o", label=name.replace("_", " "))
        if len(matches) > 1:
            low = np.array([band.low for band in bands])
            high = np.array([band.high for band in bands])
            if measures:
                low, high = low.clip(*measures[0].bounds), high.clip(*measures[0].bounds)
            axes.fill_between(rounds, low, high, alpha=0.2, color=line.get_color(), lw=0)
    if any(each.name == "clean_error" for each in measures):
        clean = np.mean([metric(matches, "clean_error") for matches in played.values()])
        axes.axhline(float(clean), color="grey", ls=":", label="clean error (mean)")
    title = f"defender's {measures[0].title}" if measures else "defender's payoff"
    limits = measures[0].bounds if measures else (lowest - 0.05, highest + 0.05)
    axes.set(xlabel="round", ylabel=title, ylim=limits)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", frameon=False, ncols=4, fontsize="small")
    return figure


def payoffs_by_round(played: list[Played]) -> np.ndarray[Any, Any]:
    """The defender's payoff by seed and round, [seeds, rounds]."""
    return np.array([[line["payoffs"]["defender"] for line in match.lines] for match in played])
