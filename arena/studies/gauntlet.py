"""Every defense against the attacks that its authors tried and those that came later."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from arena.core import Strategy
from arena.estimate import Estimate, over_seeds
from arena.executors.processes import Processes
from arena.fields import Count
from arena.report import Table
from arena.studies.conclusion import conclude
from arena.studies.progress import progress
from arena.studies.roster import Attack, Cell, Defense, match, played, versus
from arena.studies.study import Played, Setup, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Gauntlet(Study):
    """Each defense commits to a model; then each attack answers, on the same examples.

    A match has one round with the defender first and a folder of its own. No match is played twice,
    and a defense is trained once for all its attacks. Intervals are 95 %: normal over examples with
    one seed, Student's t over seeds with several.

    Attributes:
        title: Of the table.
        defenses: By name, in the table's order.
        attacks: What every defense meets, by column.
        contrast: Two columns whose difference is shown, paired by example.
        seeds: Matches per cell, counted from the configured seed.
        workers: Processes that play at once.
    """

    title: str
    defenses: Mapping[str, Defense]
    attacks: Mapping[str, Attack] = field(default_factory=dict)
    contrast: tuple[str, str] | None = None
    seeds: Count = 1
    workers: Count = 2

    def run(self, setup: Setup) -> None:
        """Plays all matches, prints the tables, and writes figure and report.

        A match that fails (a training that diverges, say) leaves its reason in its cell, and the
        others alone.

        Raises:
            Unplayable: If the declarations of any match contradict each other; nothing was trained.
            ValueError: If the data do not fit them.
            Refuted: If a mistake was found where a certificate says that there is none.
        """
        matches = [*self._matches(setup)]
        _ = matches[0][1].arena().board  # the data, refused here if they do not fit the players
        found: dict[tuple[Cell, int], Played] = {}
        failed: dict[Cell, str] = {}
        with progress(len(matches)) as tell:
            setups = [each for _, each in matches]
            for number, outcome in Processes(self.workers).results(played, setups):
                cell, each = matches[number]
                if isinstance(outcome, Played):
                    found[cell, each.seed] = outcome
                    tell(versus(cell), outcome.lines[-1])
                else:
                    failed[cell] = outcome
                    tell(versus(cell), f"failed: {outcome}")
        results: dict[Cell, list[Played]] = {}
        for cell, seed in sorted(found, key=lambda each: each[1]):
            if cell not in failed:
                results.setdefault(cell, []).append(found[cell, seed])
        remarks = [f"Failed: {versus(cell)}: {why}" for cell, why in failed.items()]
        if not failed and not sum(match.fresh for match in found.values()):
            remarks.append(f"{setup.folder} already held all {len(matches)} matches.")
        tables = [self.table(results, failed), self.legend()]
        figures = {"errors": self.figure(results)}
        conclude(setup.folder, self.title, tables, figures, remarks=remarks)

    def columns(self) -> list[str]:
        """Of attacks: those that all defenses meet, then the defenses' own."""
        own = [column for defense in self.defenses.values() for column in defense.attacks]
        return list(dict.fromkeys([*self.attacks, *own]))

    def _matches(self, setup: Setup) -> Iterator[tuple[Cell, Setup]]:
        """All matches: each defense's first, then each defense's second, and so on.

        In this order processes train different defenses, and do not wait for each other's.
        """
        faced = {name: defense.met(self.attacks) for name, defense in self.defenses.items()}
        for number in range(max(map(len, faced.values()))):
            for name, attacks in faced.items():
                for column in list(attacks)[number : number + 1]:
                    for seed in range(setup.seed, setup.seed + self.seeds):
                        cell, defense = (name, column), self.defenses[name]
                        yield cell, match(setup, cell, defense, attacks[column], seed)

    def table(self, results: Mapping[Cell, list[Played]], failed: Mapping[Cell, str]) -> Table:
        """A line per defense: its cost under each attack, the largest, and the certified cost."""
        columns = self.columns()
        rows = []
        for name in self.defenses:
            own = {column: results[name, column] for column in columns if (name, column) in results}
            found = {column: cost(matches) for column, matches in own.items()}
            line = [
                "failed" if (name, column) in failed else str(found.get(column, ""))
                for column in columns
            ]
            if self.contrast:
                both = all(column in own for column in self.contrast)
                line.append(str(difference(*(own[c] for c in self.contrast))) if both else "")
            line.append(str(max(found.values(), key=lambda each: each.mean)) if found else "")
            proved = certified(own)
            rows.append([name, *line, str(proved) if proved else ""])
        between = [f"{self.contrast[0]} less {self.contrast[1]}"] if self.contrast else []
        return Table(
            self.title,
            ["defense", *columns, *between, "worst", "certified"],
            rows,
            "The defender's mean cost, ± 95 %: its error rate, unless it may refuse. Worst: the "
            "most of a line, a lower bound for the worst attack there is; certified: an upper one.",
        )

    def legend(self) -> Table:
        """The published results of each defense, and the column of each of its own attacks."""
        own = [c for c in self.columns() if c not in self.attacks]
        rows = []
        for name, defense in self.defenses.items():
            met = [defense.attacks.get(column) for column in own]
            named = [_named(attack.strategy) if attack else "" for attack in met]
            rows.append([name, *named, defense.published])
        common = "; ".join(f"{c}: {_named(a.strategy)}" for c, a in self.attacks.items())
        columns = ["defense", *own, "published"]
        return Table("What they meet", columns, rows, common and f"All meet {common}.")

    def figure(self, results: Mapping[Cell, list[Played]]) -> "Figure":
        """The cost of each defense under each attack, and the certified cost."""
        from matplotlib.figure import Figure

        columns = self.columns()
        names = [name for name in self.defenses if any(cell[0] == name for cell in results)]
        figure = Figure(figsize=(7.5, 1.2 + 0.42 * len(names)), layout="constrained")
        axes = figure.subplots()
        for number, column in enumerate(columns):
            rows = [row for row, name in enumerate(names) if (name, column) in results]
            found = [cost(results[names[row], column]) for row in rows]
            axes.errorbar(
                [each.mean for each in found],
                [row + 0.6 * ((number + 0.5) / len(columns) - 0.5) for row in rows],
                xerr=[each.half for each in found],
                fmt="o",
                markersize=4,
                capsize=2,
                linewidth=1,
                label=column,
            )
        bounds = [certified({c: r for (n, c), r in results.items() if n == name}) for name in names]
        proved = [(row, bound.mean) for row, bound in enumerate(bounds) if bound]
        if proved:
            at, most = zip(*proved, strict=True)
            axes.plot(most, at, "k|", markersize=18, label="certified")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="defender's cost (± 95 %)", xlim=(-0.02, 1.02))
        axes.grid(axis="y", alpha=0.3)
        figure.legend(loc="outside upper center", frameon=False, ncols=6, fontsize="small")
        return figure


def cost(matches: list[Played]) -> Estimate:
    """The defender's mean cost, over examples within seeds."""
    return over_seeds([match.outcomes["defender"][0] for match in matches])


def difference(one: list[Played], other: list[Played]) -> Estimate:
    """How much more `one` costs the defender than `other`, paired by seed and example."""
    pairs = zip(one, other, strict=True)
    return over_seeds([a.outcomes["defender"][0] - b.outcomes["defender"][0] for a, b in pairs])


def certified(own: Mapping[str, list[Played]]) -> Estimate | None:
    """The largest share, over columns, that is not certified against the column's attacker."""
    found = [
        over_seeds([1.0 - match.outcomes["certified"][0] for match in matches])
        for matches in own.values()
        if all("certified" in match.outcomes for match in matches)
    ]
    return max(found, key=lambda each: each.mean, default=None)


def _named(strategy: Strategy) -> str:
    """A strategy's class, and those that it uses."""
    values = [getattr(strategy, each.name) for each in fields(strategy)]
    within = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    inner = ", ".join(_named(one) for one in within if isinstance(one, Strategy))
    return type(strategy).__name__ + (f"({inner})" if inner else "")
