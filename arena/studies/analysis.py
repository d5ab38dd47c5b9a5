"""The analysis of a payoff tensor: the tables, figures and numbers that studies end with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena.empirical.figures import (
    knowledge_figure,
    mixtures_figure,
    quantal_figure,
    response_figure,
    values_figure,
)
from arena.empirical.game import EmpiricalGame
from arena.empirical.general_sum import GeneralSum, general_sum
from arena.empirical.protocol import STANDARD, Protocol
from arena.empirical.quantal import QuantalPath, quantal_path
from arena.empirical.response_graph import Profile, ResponseGraph, response_graph
from arena.empirical.values import Value, Values, values
from arena.estimate import Estimate
from arena.report import Table, save_records
from arena.solvers.payoffs import ROUNDING, Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = tuple(share / 10 for share in range(11))
"""The shares of the knowledge curve, from black box to white box."""

RATIONALITY = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Rationalities, from uniform play to nearly an equilibrium where payoffs span 1."""

_MANY = 4  # sinks and profiles that a table lists


@dataclass(frozen=True)
class Analysis:
    """The results that are printed and saved.

    Attributes:
        tables: For people.
        figures: By file name.
        records: The same numbers for programs, by file name.
    """

    tables: tuple[Table, ...]
    figures: Mapping[str, "Figure"]
    records: Mapping[str, Sequence[Mapping[str, Any]]]

    def save(self, folder: Path) -> None:
        """Writes the records, one CSV file per name."""
        for name, records in self.records.items():
            save_records(records, folder, name)


def concluding(analyse: Callable[[], Analysis]) -> Analysis:
    """The analysis that ends a study; if it is refused, the reason is printed, and it is empty.

    So the payoffs are shown even if too few cells were played to analyse them.
    """
    try:
        return analyse()
    except ValueError as error:
        print(f"No analysis: {error}")
        return Analysis((), {}, {})


def analysis(
    games: Sequence[EmpiricalGame],
    protocols: Sequence[Protocol] = STANDARD,
    cells: tuple[float, float] | None = None,
    seed: int = 0,
    rationality: Sequence[float] = (),
) -> Analysis:
    """Values by protocol, prices, mixtures, the knowledge curve, best responses and equilibria.

    If cells are missing, the models and attacks that lack most are left out, and named, until none
    is missing. With `cells`, all are kept and values are bracketed instead. In a zero-sum game
    all equilibria have the same value v and are not listed. Quantal responses are, if asked for.

    Args:
        games: One per seed, of the same models and attacks.
        protocols: Whose values are computed.
        cells: The least and the most that a missing cell may cost the defender; None: not stated.
        seed: Of the split into halves for held-out values.
        rationality: Those at which quantal responses are shown, in units of 1 / payoff.

    Raises:
        ValueError: As `values`; if no cell is left.
        ArithmeticError: If a solver fails.
    """
    left_out: list[str] = []
    if cells is None:
        games, left_out = _complete(games)
    found = values(games, protocols, cells=cells, seed=seed)
    curve = values(games, [_glimpse(share) for share in SHARES], hold_out=False, cells=cells).values
    tables = [_values_table(found, games, left_out)]
    if found.prices:
        tables.append(_prices_table(found))
    figures = {"values": values_figure(found), "knowledge_curve": knowledge_figure(curve)}
    records = {
        "values": [_record(value) for value in found.values],
        "prices": [
            {"price": price.name, **_numbers(price.estimate, price.unselected)}
            for price in found.prices
        ],
        "knowledge_curve": [_record(value) for value in curve],
    }
    if not any(game.missing for game in games):
        names = games[0].models, games[0].attacks
        figures["mixtures"] = mixtures_figure(*names, found.values)
        records["mixtures"] = _mixtures(*names, found.values)
        responses = response_graph(games)
        tables.append(_responses_table(responses))
        figures["responses"] = response_figure(responses)
        records["responses"] = _edges(responses)
        if rationality:
            path = quantal_path(games, rationality)
            tables.append(_quantal_table(path, *names))
            figures["quantal_responses"] = quantal_figure(path, *names)
            records["quantal_responses"] = _quantal_records(path, *names)
        if not found.zero_sum:
            outcomes = general_sum(games)
            tables.append(_outcomes_table(outcomes))
            records["outcomes"] = [
                {
                    "outcome": each.name,
                    "defender": each.defender.mean,
                    "defender_half": each.defender.half,
                    "attacker": each.attacker.mean,
                    "attacker_half": each.attacker.half,
                    "attained": each.attained,
                }
                for each in outcomes.outcomes
            ]
    return Analysis(tuple(tables), figures, records)


def _glimpse(share: float) -> Protocol:
    return Protocol("defender_first", "probe", "mixed", share=share)


def _text(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


def _spread(games: Sequence[EmpiricalGame]) -> str:
    return f"Student's t over {len(games)} seeds" if len(games) > 1 else "over examples"


def _complete(games: Sequence[EmpiricalGame]) -> tuple[list[EmpiricalGame], list[str]]:
    """The games without the models and attacks that lack most cells, and the names of these."""
    games, left_out = list(games), []
    while lacking := {cell for game in games for cell in game.missing}:
        models, attacks = games[0].models, games[0].attacks
        shares = {m: sum(cell[0] == m for cell in lacking) / len(attacks) for m in models}
        others = {a: sum(cell[1] == a for cell in lacking) / len(models) for a in attacks}
        model, attack = max(shares, key=shares.__getitem__), max(others, key=others.__getitem__)
        of_model = shares[model] >= others[attack]
        keep_models = [m for m in models if not of_model or m != model]
        keep_attacks = [a for a in attacks if of_model or a != attack]
        if not keep_models or not keep_attacks:
            games[0].payoffs("defender")  # names a missing cell
            raise ValueError("no cell is there for every seed")
        left_out.append(model if of_model else attack)
        games = [game.part(keep_models, keep_attacks) for game in games]
    return games, left_out


def _values_table(found: Values, games: Sequence[EmpiricalGame], left_out: Sequence[str]) -> Table:
    rows = []
    for value in found.values:
        bracket = value.bracket
        between = "" if bracket is None else f"[{bracket[0].mean:.3f}, {bracket[1].mean:.3f}]"
        cells = (_text(value.estimate), _text(value.unselected), between)
        rows.append([str(value.protocol), value.protocol.symbol, *cells])
    examples = min(game.examples for game in games)
    notes = [f"The defender's payoff, ± 95 % ({_spread(games)}), on {examples} examples per seed"]
    notes.append("held out: moves chosen on the other half of the examples")
    if any(value.bracket for value in found.values):
        notes.append("bracket: from certificates below, from attacks above; sampling error apart")
    if found.margin is not None:
        notes.append(f"with 95 %, no cell of a seed is off by more than {found.margin:.3f}")
    if found.unattacked:
        notes.append(
            f"no attack was crafted against {', '.join(found.unattacked)}: their values for a "
            "defender who goes first are upper bounds"
        )
    if left_out:
        notes.append(f"left out because cells are missing: {', '.join(left_out)}")
    if not found.zero_sum:
        notes.append("not zero-sum: values against an attacker who only wants the defender's loss")
    columns = ["protocol", "value", "defender's payoff", "held out", "bracket"]
    return _without_empty(Table("Values by protocol", columns, rows, "; ".join(notes) + "."))


def _without_empty(table: Table) -> Table:
    """The table without its last columns, if they are empty."""
    width = len(table.columns)
    while width > 1 and not any(row[width - 1] for row in table.rows):
        width -= 1
    return replace(table, columns=table.columns[:width], rows=[row[:width] for row in table.rows])


def _prices_table(found: Values) -> Table:
    rows = []
    for price in found.prices:
        bracket = "" if price.bracket is None else "[{:.3f}, {:.3f}]".format(*price.bracket)
        held_out = price.unselected
        told = "" if held_out is None else "yes" if held_out.low > 0 else "not shown"
        rows.append([price.name, _text(price.estimate), _text(held_out), told, bracket])
    table = Table(
        "Prices",
        ["", "price", "held out", "above 0", "bracket"],
        rows,
        "Differences of payoffs, paired by example. A price is never negative by construction; the "
        "held-out difference tells whether it is above 0.",
    )
    return _without_empty(table)


def _profile(profile: Profile) -> str:
    return f"{profile[0]} / {profile[1]}"


def _responses_table(found: ResponseGraph) -> Table:
    rows = []
    sure, edges = found.certain.number_of_edges(), found.graph.number_of_edges()

    def mass(sink: Sequence[Profile]) -> float:
        return sum(float(found.graph.nodes[node]["mass"]) for node in sink)

    for name, certain in (("all edges", False), ("certain edges", True)):
        sinks = sorted(found.sinks(certain), key=mass, reverse=True)
        passing = [cycle for cycle in found.cycles(certain) if cycle not in sinks]
        ends = [(each, "equilibrium" if len(each) == 1 else "cycle") for each in sinks]
        ends += [(each, "or pass through: cycle") for each in passing]
        for members, kind in ends[:_MANY]:
            size = "" if len(members) == 1 else f" of {len(members)}"
            shown = ", ".join(map(_profile, members[:_MANY])) + ", ..." * (len(members) > _MANY)
            rows.append([name, kind + size, f"{mass(members):.2f}", shown])
        if ends[_MANY:]:
            rows.append([name, f"{len(ends) - _MANY} more", "", ""])
    return Table(
        "Where best responses end",
        ["read by", "they end in", "alpha-rank", "model / attack"],
        rows,
        f"{sure} of {edges} best responses are certain: their gain's interval, at a level that "
        "holds for all pairs at once, leaves out 0. In the reading of certain edges a profile that "
        "no certain edge leaves counts as an equilibrium.",
    )


def _outcomes_table(found: GeneralSum) -> Table:
    rows = [
        [
            each.name + ("" if each.attained else " (supremum)"),
            str(each.defender),
            str(each.attacker),
        ]
        for each in found.outcomes
    ]
    notes = ["Moves chosen on mean payoffs; payoffs ± 95 %"]
    if found.degenerate:
        notes.append("payoffs tie: equilibria come in continua, of which the corners are listed")
    if found.refusal is not None:
        notes.append(f"equilibria are not listed: {found.refusal}")
    columns = ["outcome", "defender's payoff", "attacker's payoff"]
    return Table("Where the game is not zero-sum", columns, rows, "; ".join(notes) + ".")


def _quantal_table(found: QuantalPath, models: Sequence[str], attacks: Sequence[str]) -> Table:
    rows = [
        [
            f"{each.rationality:g}",
            str(each.defender),
            str(each.attacker),
            _likeliest(models, each.models),
            _likeliest(attacks, each.attacks),
        ]
        for each in found.points
    ]
    note = (
        "Quantal responses: moves in proportion to exp(rationality x mean payoff), both players "
        "alike; payoffs ± 95 %. Rationality 0 is uniform play, an infinite one an equilibrium."
    )
    if found.refusal is not None:
        note += f" More of it was not reached: {found.refusal}."
    columns = ["rationality", "defender's payoff", "attacker's payoff", "model", "attack"]
    return Table("Where players make mistakes", columns, rows, note)


def _likeliest(names: Sequence[str], shares: Array) -> str:
    if np.ptp(shares) < ROUNDING:
        return "all alike"
    best = int(shares.argmax())
    return f"{names[best]} ({shares[best]:.2f})"


def _quantal_records(
    found: QuantalPath, models: Sequence[str], attacks: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {
            "rationality": each.rationality,
            "player": player,
            "payoff": payoff.mean,
            "half": payoff.half,
            "move": name,
            "probability": float(share),
        }
        for each in found.points
        for player, payoff, names, shares in (
            ("defender", each.defender, models, each.models),
            ("attacker", each.attacker, attacks, each.attacks),
        )
        for name, share in zip(names, shares, strict=True)
    ]


def _numbers(estimate: Estimate | None, held_out: Estimate | None) -> dict[str, float | None]:
    return {
        "value": None if estimate is None else estimate.mean,
        "half": None if estimate is None else estimate.half,
        "held_out": None if held_out is None else held_out.mean,
        "held_out_half": None if held_out is None else held_out.half,
    }


def _record(value: Value) -> dict[str, Any]:
    bracket = value.bracket
    return {
        "symbol": value.protocol.symbol,
        **vars(value.protocol),
        **_numbers(value.estimate, value.unselected),
        "certified": None if bracket is None else bracket[0].mean,
        "attacked": None if bracket is None else bracket[1].mean,
    }


def _mixtures(
    models: Sequence[str], attacks: Sequence[str], found: Sequence[Value]
) -> list[dict[str, Any]]:
    records = []
    for value in found:
        mixed = np.mean([each.models for each in value.solutions], axis=0)
        shares = [("defender", name, share) for name, share in zip(models, mixed, strict=True)]
        replies = [each.attacks for each in value.solutions if each.attacks is not None]
        if replies and replies[0].shape[0] == 1:
            mean = np.mean([reply[0] for reply in replies], axis=0)
            shares += [("attacker", name, share) for name, share in zip(attacks, mean, strict=True)]
        records += [
            {
                "symbol": value.protocol.symbol,
                "protocol": str(value.protocol),
                "player": player,
                "move": name,
                "probability": float(share),
            }
            for player, name, share in shares
        ]
    return records


def _edges(found: ResponseGraph) -> list[dict[str, Any]]:
    return [
        {
            "model": one[0],
            "attack": one[1],
            "to_model": other[0],
            "to_attack": other[1],
            "player": edge["player"],
            "gain": edge["gain"].mean,
            "half": edge["gain"].half,
            "level": found.level,
            "certain": edge["certain"],
        }
        for one, other, edge in found.graph.edges(data=True)
    ]
