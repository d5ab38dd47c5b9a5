"""Repeated play: responders with and without memory, side by side, and what each forgets."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from arena import chance
from arena.empirical.double_oracle import Halves, Judged, judge, paired
from arena.empirical.game import EmpiricalGame
from arena.empirical.oracles import Mixture, Oracles, Responding, crossed
from arena.empirical.repeated_play import Memory, Round, forgetting, period, repeated_play
from arena.estimate import Estimate
from arena.events import Events
from arena.fields import Count
from arena.report import Table, save_records
from arena.solvers.payoffs import Array
from arena.studies.conclusion import conclude
from arena.studies.double_oracle import BOUND
from arena.studies.progress import progress
from arena.studies.study import Setup, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORIES: tuple[Memory, ...] = get_args(Memory)


@dataclass(frozen=True)
class Responder:
    """The results of one responder's rounds.

    Attributes:
        rounds: The rounds.
        payoffs: The defender's, of the model of round t on the attack of round s, [T, T, E].
        judged: Of the standing mixtures of each round, against all moves of all responders.
    """

    rounds: Sequence[Round]
    payoffs: Array
    judged: Sequence[Judged]


@dataclass(frozen=True)
class RepeatedPlay(Study):
    """Plays the same rounds with responders that answer the last move, all, or their Nash mixture.

    Every move of every responder is then played against every other. `cross_play.csv` holds the
    payoffs of each responder's rounds against each other. `rounds.csv` holds the value of its
    standing mixtures, judged by the best replies among the moves of all responders.

    Attributes:
        responding: How both players respond.
        rounds: How many, after the opening.
    """

    responding: Responding
    rounds: Count = 10

    def run(self, setup: Setup) -> None:
        """Plays, prints the tables, and writes figure and report.

        Raises:
            ValueError: If the players cannot respond to mixtures; nothing was trained.
        """
        arena = setup.arena()
        oracles = self.responding.oracles(arena, setup.cells)
        halves = Halves.of(oracles.examples, chance.seed_of(setup.seed, "halves"))
        events = Events(setup.folder)
        rounds: dict[Memory, list[Round]] = {memory: [] for memory in MEMORIES}
        with progress(len(MEMORIES) * (self.rounds + 2)) as tell:
            for memory in MEMORIES:
                endless = repeated_play(oracles, memory, halves, arena.derived_seed("play"))
                for each in itertools.islice(endless, self.rounds + 2):
                    rounds[memory].append(each)
                    at = {"row": {each.model: each.model}, "column": {each.attack: each.attack}}
                    payoff = crossed(oracles, *at.values()).payoffs("defender").mean()
                    tell(f"{_called(memory)}, round {each.number}", f"payoff {payoff:.3f}")
        played = side_by_side(oracles, rounds, halves)
        for memory, own in played.items():
            for each, judged in zip(own.rounds, own.judged, strict=True):
                values = {"exploitability": judged.exploitability.mean, "value": judged.value.mean}
                named = {f"{name}/{memory}": value for name, value in values.items()}
                events.scalars(each.number, named)
        save_records(list(_lines(played)), setup.folder, "rounds")
        save_records(list(_cells(played)), setup.folder, "cross_play")
        figures = {"repeated_play": side_by_side_figure(played)}
        conclude(setup.folder, "Repeated play", [summary_table(played)], figures, events)


def side_by_side(
    oracles: Oracles, rounds: Mapping[Memory, Sequence[Round]], halves: Halves
) -> dict[Memory, Responder]:
    """All responders' moves against each other, and every round's mixtures judged by them.

    The last round of each is not shown: its moves are there to answer those of the one before.
    """
    every = [each for own in rounds.values() for each in own]
    models = {each.model: each.model for each in every}
    attacks = {each.attack: each.attack for each in every}
    game = crossed(oracles, models, attacks)
    payoffs = game.payoffs("defender")
    found = {}
    for memory, all_ in rounds.items():
        own = all_[:-1]
        d = [game.models.index(each.model) for each in own]
        a = [game.attacks.index(each.attack) for each in own]
        found[memory] = Responder(
            rounds=own,
            payoffs=payoffs[np.ix_(d, a)],
            judged=[_judged(game, each, halves) for each in own],
        )
    return found


def _judged(game: EmpiricalGame, each: Round, halves: Halves) -> Judged:
    row, column = _weights(game.models, each.models), _weights(game.attacks, each.attacks)
    return judge(game, game, row, column, halves)


def _weights(names: Sequence[str], mixture: Mixture) -> Array:
    return np.array([mixture.get(name, 0.0) for name in names])


def _called(memory: str) -> str:
    return memory.replace("_", " ")


def summary_table(played: Mapping[Memory, Responder]) -> Table:
    """A line per responder."""
    rows = []
    for memory, own in played.items():
        last, lost = own.judged[-1], forgetting(own.payoffs)
        cycle = period(own.payoffs)
        rows.append(
            [
                _called(memory),
                str(last.value),
                str(last.exploitability),
                str(lost[1]) if len(lost) > 1 else "",
                str(_later(own.payoffs)) if len(lost) > 2 else "",
                "none found" if cycle is None else f"{cycle} rounds",
            ]
        )
    count = len(next(iter(played.values())).rounds) - 1
    return Table(
        f"Repeated play, {count} rounds after the opening",
        [
            "responder",
            "value at the end",
            "exploitability at the end",
            "lost a round later",
            "lost two rounds later or more",
            "period",
        ],
        rows,
        "Defender's payoffs, ± 95 % over examples, one run of each responder: its training seeds "
        f"are not resampled. Exploitability of the standing mixtures is {BOUND}. Lost: the payoff "
        "of later models on an attack, minus that of the model which had just answered it.",
    )


def _later(u: Array) -> Estimate:
    """The mean forgetting over all rounds two or more later, paired by example."""
    lost = [u[t, s] - u[s, s] for s in range(1, len(u)) for t in range(s + 2, len(u))]
    return paired(np.mean(lost, axis=0))


def _lines(played: Mapping[Memory, Responder]) -> list[dict[str, Any]]:
    return [
        {
            "responder": memory,
            "round": each.number,
            "value": judged.value.mean,
            "exploitability": judged.exploitability.mean,
            "exploitability_low": judged.exploitability.low,
            "exploitability_high": judged.exploitability.high,
            "models_in_support": sum(weight > 0 for weight in each.models.values()),
            "attacks_in_support": sum(weight > 0 for weight in each.attacks.values()),
        }
        for memory, own in played.items()
        for each, judged in zip(own.rounds, own.judged, strict=True)
    ]


def _cells(played: Mapping[Memory, Responder]) -> list[dict[str, Any]]:
    return [
        {
            "responder": memory,
            "model_of": t,
            "attack_of": s,
            "payoff": float(own.payoffs[t, s].mean()),
        }
        for memory, own in played.items()
        for t in range(len(own.payoffs))
        for s in range(len(own.payoffs))
    ]


def side_by_side_figure(played: Mapping[Memory, Responder]) -> "Figure":
    """The cross-plays above; forgetting by lag and exploitability by round below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10.5, 7), layout="constrained")
    grid = figure.add_gridspec(2, 1)
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    maps = above.subplots(1, len(played), sharey=True)
    means = {memory: own.payoffs.mean(2) for memory, own in played.items()}
    low = min(float(mean.min()) for mean in means.values())
    high = max(float(mean.max()) for mean in means.values())
    for axes, (memory, mean) in zip(maps, means.items(), strict=True):
        image = axes.imshow(mean, vmin=low, vmax=high, cmap="RdYlBu", origin="lower")
        axes.set(title=_called(memory), xlabel="attack of round")
    maps[0].set_ylabel("model of round")
    above.colorbar(image, ax=maps, label="defender's payoff")
    left, right = below.subplots(1, 2)
    for memory, own in played.items():
        lost = forgetting(own.payoffs)
        for axes, curve in ((left, lost), (right, [each.exploitability for each in own.judged])):
            at = np.arange(len(curve))
            (drawn,) = axes.plot(
                at, [e.mean for e in curve], marker="o", ms=3, label=_called(memory)
            )
            band = [e.low for e in curve], [e.high for e in curve]
            axes.fill_between(at, *band, alpha=0.15, lw=0, color=drawn.get_color())
    left.axhline(0, color="grey", lw=0.7)
    left.set(xlabel="rounds later", ylabel="payoff on the attack, less at first")
    right.set(xlabel="round", ylabel="exploitability (lower bound)", ylim=(0, None))
    for axes in (*maps, left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    maps[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure
