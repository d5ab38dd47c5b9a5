"""Who moves first [F9, F15]: the same players under every order, with the price of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena.core import MoveOrder
from arena.empirical.cells import Cells
from arena.empirical.crossplay import cross_play
from arena.empirical.game import EmpiricalGame
from arena.empirical.rounds import rounds_played
from arena.estimate import Estimate, over_seeds
from arena.events import Events
from arena.executors.executor import Serial
from arena.fields import Count, NonNegative
from arena.games.evasion import EvasionBoard
from arena.report import Page, Table, number, print_table, save_study
from arena.store import Store
from arena.studies.analysis import RATIONALITY, analysis, concluding
from arena.studies.figures import show_figures
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

    Only the order differs, and so what each player sees when it moves. Averages are over all
    rounds; intervals are Student's t over seeds, paired by seed for prices. In the end all attacks
    meet all models, those of other rounds and orders included, and the game of them is analysed:
    its values say what who moves first is worth to players who choose among what was found.

    Attributes:
        rounds: Rounds a match.
        seeds: Matches an order, counted from the configured seed.
        rationality: Of quantal responses, a point of the path each, in units of 1 / payoff; an
            empty list shows none.
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
        tables = [orders_table(played), prices_table(played)]
        games = self._games(setup, played)
        found = concluding(partial(analysis, games, seed=setup.seed, rationality=self.rationality))
        found.save(setup.folder)
        tables += found.tables
        for table in tables:
            print_table(table)
        figures = {"error_by_round": error_figure(played), **found.figures}
        shown = show_figures(figures, setup.folder, Events(setup.folder))
        report = save_study(setup.folder, Page("Who moves first", tables, shown))
        if not sum(match.fresh for matches in played.values() for match in matches):
            print(f"{setup.folder} already held all {total} rounds; nothing was played.")
        print(f"Figure: {Path(setup.folder, 'error_by_round.png')}")
        print(f"Report: {report}")
        print(f"Events: tensorboard --logdir {setup.folder}")

    def _games(self, setup: Setup, played: Mapping[str, list[Played]]) -> list[EmpiricalGame]:
        """The cross-play of all rounds of all orders, a game a seed."""
        store = setup.store or Store(setup.folder / "models")
        plays = []
        for k in range(self.seeds):
            seed = setup.seed + k
            matches = {
                name.replace("_", " "): (setup.folder / name / f"seed-{seed}", kept[k].lines)
                for name, kept in played.items()
            }
            board = setup.variant(setup.order, seed, setup.folder).arena().board
            assert isinstance(board, EvasionBoard), "other games measure no errors"
            strategy = setup.players["defender"].strategy
            plays.append(rounds_played(board.scoring, strategy, matches))
        return cross_play(plays, Cells.beside(store.folder), Serial())


def payoff(played: list[Played], player: str) -> list[np.ndarray[Any, Any]]:
    """Per seed, each example's payoff averaged over the rounds, [n]."""
    return [-np.nanmean(match.outcomes[player], axis=0) for match in played]


def metric(played: list[Played], name: str) -> np.ndarray[Any, Any]:
    """A metric by seed and round, [seeds, rounds].

    Raises:
        ValueError: If the game does not measure it.
    """
    if name not in played[0].lines[0]["metrics"]:
        raise ValueError(
            f"study=who_moves_first compares the {name}, which this game does not measure; "
            "play it with study=match and order=attacker_first, defender_first or simultaneous"
        )
    return np.array([[line["metrics"][name] for line in match.lines] for match in played])


def mean_metric(played: list[Played], name: str) -> Estimate:
    """A metric's mean over rounds and seeds."""
    return over_seeds(list(metric(played, name).mean(1, keepdims=True)))


def orders_table(played: Mapping[str, list[Played]]) -> Table:
    """A line an order."""
    rows = []
    for name, matches in played.items():
        seconds = [sum(sum(line["seconds"].values()) for line in m.lines) for m in matches]
        rows.append(
            [
                name.replace("_", " "),
                str(mean_metric(matches, "attacked_error")),
                str(mean_metric(matches, "clean_error")),
                str(over_seeds(payoff(matches, "attacker"))),
                str(over_seeds(payoff(matches, "defender"))),
                number(mean_metric(matches, "queries").mean, 1),
                number(mean_metric(matches, "gradients").mean, 1),
                number(float(np.mean(seconds)), 1),
            ]
        )
    one = next(iter(played.values()))
    return Table(
        "Who moves first",
        [
            "order",
            "error under attack",
            "clean error",
            "attacker's payoff",
            "defender's payoff",
            "queries",
            "gradients",
            "seconds",
        ],
        rows,
        f"Means over {len(one[0].lines)} rounds, ± 95 % (Student's t over {len(one)} seeds); "
        "queries and gradients per example and round, seconds per match.",
    )


def price(first: list[Played], other: list[Played], player: str) -> Estimate:
    """What the player's payoff loses by going first instead, paired by seed and example."""
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


def error_figure(played: Mapping[str, list[Played]]) -> "Figure":
    """The defender's error by round, one curve per order, with 95 % bands over seeds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, matches in played.items():
        errors = metric(matches, "attacked_error")
        rounds = np.arange(errors.shape[1])
        bands = [over_seeds(list(errors[:, [t]])) for t in rounds]
        middle = np.array([band.mean for band in bands])
        (line,) = axes.plot(rounds, middle, marker="o", label=name.replace("_", " "))
        if len(matches) > 1:
            low = np.clip([band.low for band in bands], 0, 1)
            high = np.clip([band.high for band in bands], 0, 1)
            axes.fill_between(rounds, low, high, alpha=0.2, color=line.get_color(), lw=0)
    clean = np.mean([metric(matches, "clean_error") for matches in played.values()])
    axes.axhline(float(clean), color="grey", ls=":", label="clean error (mean)")
    axes.set(xlabel="round", ylabel="defender's error under attack", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", frameon=False, ncols=4, fontsize="small")
    return figure
