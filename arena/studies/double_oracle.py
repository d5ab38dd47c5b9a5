"""Double oracle: populations grow by best responses until no response gains anything."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from arena import chance
from arena.empirical.double_oracle import Halves, Iteration, double_oracle, paired, secured
from arena.empirical.oracles import Oracles, Responding
from arena.estimate import Estimate
from arena.events import Events
from arena.fields import Count, Positive
from arena.files import atomically
from arena.report import Table, number, save_records
from arena.studies.conclusion import conclude
from arena.studies.progress import progress
from arena.studies.study import Setup, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOUND = "found by best responses that were searched for and trained: a lower bound"


@dataclass(frozen=True)
class DoubleOracle(Study):
    """Grows both players' populations from a plain model and honest inputs.

    Results go to `iterations.jsonl`, one line per iteration, and to `exploitability.csv`. The last
    population's payoffs go to `payoffs.csv`. A run that was killed goes through the same moves
    again, finds all that it had trained, crafted and played, and leaves the same files.

    Attributes:
        responding: How both players respond.
        meta: Which mixture of a population is responded to.
        iterations: The largest number of iterations.
        tolerance: Exploitability, in units of payoff, below which it ends.
        seeds: Fresh best responses of each player that judge a population, each trained and
            searched for with a seed of its own: the best counts, and their spread is shown.
    """

    responding: Responding
    meta: Literal["nash", "replicator", "regret_matching", "uniform"] = "nash"
    iterations: Count = 8
    tolerance: Positive = 0.01
    seeds: Count = 1

    def run(self, setup: Setup) -> None:
        """Runs the loop, prints the tables, and writes figure and report.

        Raises:
            ValueError: If the players cannot respond to mixtures; nothing was trained.
        """
        arena = setup.arena()
        oracles = self.responding.oracles(arena, setup.cells)
        events = Events(setup.folder)
        found: list[Iteration] = []
        loop = double_oracle(
            oracles,
            self.meta,
            self.iterations,
            self.tolerance,
            arena.derived_seed("grow"),
            self.seeds,
        )
        with progress(self.iterations) as tell:
            for each in loop:
                found.append(each)
                lines = "".join(json.dumps(line(one)) + "\n" for one in found)
                atomically(setup.folder / "iterations.jsonl", lines.encode())
                events.scalars(each.number, scalars(each))
                tell(f"iteration {each.number}", _told(each))
        randomised = randomising(oracles, found[-1], setup.seed)
        tables = [iterations_table(found), secured_table(randomised)]
        save_records([scalars(each) for each in found], setup.folder, "exploitability")
        save_records(_cells(found[-1]), setup.folder, "payoffs")
        figures = {"exploitability": curve(found, self.tolerance)}
        conclude(setup.folder, "Double oracle", tables, figures, events)


def line(each: Iteration) -> dict[str, Any]:
    """An iteration as plain data."""
    return {
        "iteration": each.number,
        **{name: _plain(value) for name, value in _estimates(each).items()},
        "by_seed": [_plain(estimate) for estimate in each.by_seed],
        "floor": each.floor,
        "bound": BOUND,
        "models": dict(zip(each.game.models, each.row.tolist(), strict=True)),
        "attacks": dict(zip(each.game.attacks, each.column.tolist(), strict=True)),
        "replies": list(each.replies),
        "settled": each.settled,
    }


def _estimates(each: Iteration) -> dict[str, Estimate]:
    return {
        "value": each.value,
        "exploitability": each.exploitability,
        "attacker_gain": each.attacker_gain,
        "defender_gain": each.defender_gain,
    }


def _plain(estimate: Estimate) -> dict[str, float]:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def scalars(each: Iteration) -> dict[str, float]:
    """An iteration's numbers by name."""
    found: dict[str, float] = {"iteration": float(each.number)}
    for name, estimate in _estimates(each).items():
        found |= {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    if each.between_seeds is not None:
        found["between_seeds"] = each.between_seeds
    return found | {
        "floor": each.floor,
        "models": float(len(each.row)),
        "models_in_support": float((each.row > 0).sum()),
        "attacks_in_support": float((each.column > 0).sum()),
    }


def _told(each: Iteration) -> str:
    settled = f"; settled: {each.settled}" if each.settled else ""
    return f"value {each.value}, exploitability at least {each.exploitability}{settled}"


def iterations_table(found: Sequence[Iteration]) -> Table:
    """A line per iteration."""
    rows = [
        [
            str(each.number),
            str(each.value),
            str(each.exploitability),
            str(each.attacker_gain),
            str(each.defender_gain),
            number(each.floor),
            *([] if each.between_seeds is None else [number(each.between_seeds)]),
            f"{(each.row > 0).sum()} of {len(each.row)}",
            f"{(each.column > 0).sum()} of {len(each.column)}",
            ", ".join(each.replies),
        ]
        for each in found
    ]
    last = found[-1]
    seeds = "Intervals leave out the seeds of trainings and searches: one of each judges."
    if len(last.by_seed) > 1:
        seeds = (
            f"Between seeds: the standard deviation of exploitability by the fresh replies of each "
            f"of {len(last.by_seed)} seeds alone; the best of them counts."
        )
    end = last.settled or "ended by the number of iterations, not settled"
    return Table(
        "Double oracle",
        [
            "iteration",
            "value",
            "exploitability",
            "attacker's gain",
            "defender's gain",
            "floor",
            *(["between seeds"] if len(last.by_seed) > 1 else []),
            "models",
            "attacks",
            "best replies",
        ],
        rows,
        f"Defender's payoffs, ± 95 % over the examples held out. Exploitability and gains are "
        f"{BOUND}. Floor: what the population's own moves seem to gain by sampling alone. "
        f"{seeds} Models, attacks: in the mixture, of the population. {end[0].upper()}{end[1:]}.",
    )


def randomising(oracles: Oracles, last: Iteration, seed: int) -> dict[str, Estimate]:
    """What mixtures of the last population secure, the best single model, and the differences."""
    names = last.moves[0]
    halves = Halves.of(oracles.examples, chance.seed_of(seed, "secured halves"))
    commitments = {name: {name: 1.0} for name in names}
    mixed = {
        "mixture": dict(zip(names, last.row.tolist(), strict=True)),
        "uniform": dict.fromkeys(names, 1 / len(names)),
    }
    payoffs = secured(oracles, {**commitments, **mixed}, seed)
    best = max(names, key=lambda name: float(payoffs[name][halves.chosen_on].mean()))
    at = halves.judged_on
    found = {"best single model": paired(payoffs[best][at])}
    for called in mixed:
        found[called] = paired(payoffs[called][at])
        found[f"{called} less best single"] = paired(payoffs[called][at] - payoffs[best][at])
    return found


def secured_table(found: dict[str, Estimate]) -> Table:
    """What a defender secures by committing to one model, or to a mixture whose draw is hidden."""
    rows = [
        ["best single model", str(found["best single model"]), ""],
        ["mixture", str(found["mixture"]), str(found["mixture less best single"])],
        ["uniform", str(found["uniform"]), str(found["uniform less best single"])],
    ]
    return Table(
        "Does randomising help?",
        ["commitment", "defender's payoff", "more than the best single"],
        rows,
        "Against fresh attacks on every model alone and on both mixtures, the most costly taken "
        "for each example; the best single model is chosen on one half of the examples, all are "
        "judged on the other; ± 95 %, paired. Upper bounds: a stronger attack takes more.",
    )


def _cells(each: Iteration) -> list[dict[str, Any]]:
    means = each.game.payoffs("defender").mean(2)
    return [
        {"model": model, **dict(zip(each.game.attacks, row.tolist(), strict=True))}
        for model, row in zip(each.game.models, means, strict=True)
    ]


def curve(found: Sequence[Iteration], tolerance: float) -> "Figure":
    """Exploitability with its band and floor, the value, and both mixtures, by iteration."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    axes = figure.subplots(2, 2)
    at = [each.number for each in found]
    left, right = axes[0]
    banded = partial(_banded, at=at)
    banded(left, [each.exploitability for each in found], label="exploitability (lower bound)")
    banded(left, [each.attacker_gain for each in found], label="the attacker's part", ls="--")
    banded(left, [each.defender_gain for each in found], label="the defender's part", ls=":")
    left.plot(at, [each.floor for each in found], color="grey", label="noise floor")
    left.axhline(tolerance, color="black", lw=0.7, ls="-.", label="tolerance")
    left.set(ylabel="payoff", ylim=(-0.02, None))
    left.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    banded(right, [each.value for each in found], label="value in the population's game")
    low = [each.value.mean - each.attacker_gain.mean for each in found]
    high = [each.value.mean + each.defender_gain.mean for each in found]
    right.plot(at, high, "k:", lw=1, label="value ± best replies found")
    right.plot(at, low, "k:", lw=1)
    right.set(ylabel="defender's payoff")
    right.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))
    for place, name, mixtures in (
        (axes[1][0], "model", [each.row for each in found]),
        (axes[1][1], "attack", [each.column for each in found]),
    ):
        shares = np.full((len(mixtures[-1]), len(found)), np.nan)
        for time, mixture in enumerate(mixtures):
            shares[: len(mixture), time] = mixture
        image = place.imshow(shares, vmin=0, vmax=1, cmap="Blues", origin="lower", aspect="auto")
        place.set(ylabel=f"{name} of the population")
        place.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=place, label="probability")
    for place in axes.flat:
        place.set_xlabel("iteration")
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _banded(
    axes: "Axes", estimates: Sequence[Estimate], at: Sequence[int], label: str, ls: str = "-"
) -> None:
    (drawn,) = axes.plot(
        at, [each.mean for each in estimates], marker="o", ms=3, ls=ls, label=label
    )
    low, high = [each.low for each in estimates], [each.high for each in estimates]
    axes.fill_between(at, low, high, alpha=0.15, lw=0, color=drawn.get_color())
