"""Figures of an analyzed game: values, mixtures, knowledge curve, quantal and best responses."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from arena.empirical.protocol import Protocol
from arena.empirical.quantal import QuantalPath
from arena.empirical.response_graph import Profile, ResponseGraph
from arena.empirical.values import Value, Values
from arena.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = {"defender": "#4477aa", "attacker": "#cc6677"}
_SHOWN = 0.005  # smaller shares get no bar


def values_figure(found: Values) -> "Figure":
    """The defender's payoff by protocol, with interval, bracket and held-out estimate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.4 + 0.42 * len(found.values)), layout="constrained")
    axes = figure.subplots()
    for row, value in enumerate(found.values):
        first = row == 0
        if (bracket := value.bracket) is not None:
            ends = bracket[0].mean, bracket[1].mean
            label = "between certificate and attack" if first else None
            axes.plot(ends, (row, row), color="#bbbbbb", lw=7, label=label, solid_capstyle="butt")
        if (plug_in := value.estimate) is not None:
            _dot(axes, plug_in, row, "o", _COLORS["defender"], "estimate" if first else None)
        if (held_out := value.unselected) is not None:
            _dot(axes, held_out, row + 0.22, ".", "#888888", "held out" if first else None)
    names = [f"{value.protocol.symbol}\n{_words(value.protocol)}" for value in found.values]
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel("defender's payoff (± 95 %)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", frameon=False, ncols=3, fontsize="small")
    return figure


def _dot(
    axes: object, found: Estimate, row: float, marker: str, color: str, label: str | None
) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    half = 0.0 if np.isnan(found.half) else found.half
    axes.errorbar(
        found.mean, row, xerr=half, marker=marker, ls="", color=color, capsize=2, label=label
    )


def _words(protocol: Protocol) -> str:
    words = {
        "move": "its move seen",
        "mixture": "its mixture seen",
        "probe": "seen through a probe",
        "nothing": "",
    }
    order = protocol.order.replace("_", " ").replace("simultaneous", "at once")
    parts = [order, words[protocol.observation]]
    if protocol.granularity == "example":
        parts.append("one attack per example")
    return ", ".join(part for part in parts if part)


def mixtures_figure(
    models: Sequence[str], attacks: Sequence[str], values: Sequence[Value]
) -> "Figure":
    """Optimal mixtures, as means over seeds: one panel per player and protocol with mixtures.

    Only moves that are played get a bar. The attacker has no panel where it replies to each example
    or to each signal.

    Args:
        models: The names of the D models.
        attacks: The names of the A attacks.
        values: One per protocol.
    """
    from matplotlib.figure import Figure

    rows: list[tuple[str, str, list[tuple[str, float]]]] = []
    for value in values:
        if value.protocol.commitment == "pure" or not value.solutions:
            continue
        mixed = np.mean([each.models for each in value.solutions], axis=0)
        rows.append((value.protocol.symbol, "defender", _played(models, mixed)))
        replies = [each.attacks for each in value.solutions if each.attacks is not None]
        if replies and replies[0].shape[0] == 1:
            mean = np.mean([reply[0] for reply in replies], axis=0)
            rows.append((value.protocol.symbol, "attacker", _played(attacks, mean)))
    heights = [0.45 + 0.22 * len(bars) for *_, bars in rows] or [1.0]  # inches
    figure = Figure(figsize=(7.2, 0.5 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)
    for axes, (symbol, player, bars) in zip(panels[:, 0], rows, strict=False):
        names, shares = zip(*bars, strict=True)
        axes.barh(names, shares, color=_COLORS[player])
        axes.invert_yaxis()
        axes.set_title(f"{symbol}: {player}", loc="left", fontsize="small")
        axes.tick_params(labelsize="small")
        for place, share in enumerate(shares):
            axes.text(share, place, f" {share:.2f}", va="center", fontsize="small")
    panels[-1, 0].set(xlabel="probability", xlim=(0, 1.1))
    return figure


def _played(
    names: Sequence[str], shares: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> list[tuple[str, float]]:
    order = np.argsort(-shares, kind="stable")
    return [(names[i], float(shares[i])) for i in order if shares[i] > _SHOWN]


def knowledge_figure(curve: Sequence[Value]) -> "Figure":
    """V_K from black box to white box, by the share seen or by the number of queries.

    Args:
        curve: Values under probes, all with a share or all with queries.

    Raises:
        ValueError: If the protocols are not all probes of one kind.
    """
    from matplotlib.figure import Figure

    shares = [value.protocol.share for value in curve if value.protocol.share is not None]
    queries = [value.protocol.queries for value in curve if value.protocol.queries is not None]
    if not curve or len(curve) not in (len(shares), len(queries)):
        raise ValueError("a knowledge curve needs probes, all by share or all by queries")
    at = np.array(shares or queries, dtype=float)
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    points = [estimate for value in curve if (estimate := value.estimate) is not None]
    if len(points) == len(curve):
        middle = [point.mean for point in points]
        (line,) = axes.plot(at, middle, marker="o", color=_COLORS["defender"])
        low, high = [point.low for point in points], [point.high for point in points]
        axes.fill_between(at, low, high, alpha=0.2, color=line.get_color(), lw=0)
    brackets = [bracket for value in curve if (bracket := value.bracket) is not None]
    if len(brackets) == len(curve):
        certified = [bracket[0].mean for bracket in brackets]
        axes.plot(at, certified, color="#888888", ls="--", label="certified")
        axes.legend(frameon=False)
    label = "how often the attacker sees which model was drawn" if shares else "labels it asks for"
    axes.set(xlabel=label, ylabel="V_K, defender's payoff (± 95 %)")
    return figure


def quantal_figure(found: QuantalPath, models: Sequence[str], attacks: Sequence[str]) -> "Figure":
    """Both players' payoffs and likeliest moves by rationality.

    Each player has the six moves that reach the highest probabilities at any rationality.
    """
    from matplotlib.figure import Figure

    at = [point.rationality for point in found.points]
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, *both = figure.subplots(1, 3)
    for player in ("defender", "attacker"):
        payoffs: list[Estimate] = [getattr(point, player) for point in found.points]
        (line,) = left.plot(at, [p.mean for p in payoffs], "o-", color=_COLORS[player])
        line.set_label(f"the {player}'s")
        low, high = [p.low for p in payoffs], [p.high for p in payoffs]
        left.fill_between(at, low, high, alpha=0.2, color=line.get_color(), lw=0)
    left.set_ylabel("payoff (± 95 %)")
    for axes, player, names in zip(both, ("models", "attacks"), (models, attacks), strict=True):
        shares = np.array([getattr(point, player) for point in found.points])
        for i in sorted(np.argsort(-shares.max(0), kind="stable")[:6]):
            axes.plot(at, shares[:, i], "o-", ms=3, label=names[i])
        axes.set(ylabel=f"probability of {player}", ylim=(0, 1))
    for axes in (left, *both):
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(left=-0.1)
        axes.set_xlabel("rationality (1 / payoff)")
        axes.legend(frameon=False, fontsize="x-small", loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def response_figure(found: ResponseGraph) -> "Figure":
    """The best-response graph on the payoff matrix, with models down and attacks across.

    Vertical arrows are the defender's changes, horizontal arrows the attacker's. Dashed arrows may
    be due to chance. The size of a circle is the profile's mass by alpha-rank; sinks are filled.
    Profiles to which play cannot return after two changes are left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch

    graph = found.graph.subgraph(found.met)
    rows = [model for model in _ordered(found, 0) if any(node[0] == model for node in graph)]
    columns = [attack for attack in _ordered(found, 1) if any(node[1] == attack for node in graph)]
    size = 3.4 + min(0.95 * len(columns), 12), 2.4 + 0.75 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()

    def place(node: Profile) -> tuple[int, int]:
        return columns.index(node[1]), rows.index(node[0])

    sinks = {node for component in found.sinks() for node in component}
    for one, other, edge in graph.edges(data=True):
        (x, y), (to_x, to_y) = place(one), place(other)
        bend = 0.2 / max(1.0, (abs(x - to_x) + abs(y - to_y)) / 2)  # to keep it inside the axes
        arrow = FancyArrowPatch(
            (x, y),
            (to_x, to_y),
            connectionstyle=f"arc3,rad={bend:.4f}",
            arrowstyle="-|>",
            mutation_scale=12,
            shrinkA=11,
            shrinkB=11,
            color=_COLORS[edge["player"]],
            ls="-" if edge["certain"] else (0, (4, 3)),
            lw=1.4,
        )
        axes.add_patch(arrow)
    for node, mass in graph.nodes(data="mass"):
        fill = "#ddcc77" if node in sinks else "white"
        x, y = place(node)
        axes.scatter(x, y, s=60 + 700 * mass, facecolor=fill, edgecolor="black", zorder=3)
        if mass > _SHOWN:
            axes.annotate(
                f"{mass:.2f}", (x, y), (8, -13), textcoords="offset points", fontsize="x-small"
            )
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize="small")
    axes.set_yticks(range(len(rows)), rows, fontsize="small")
    axes.set(xlim=(-0.6, len(columns) - 0.4), ylim=(len(rows) - 0.4, -0.6))
    handles = [
        Line2D([], [], color=_COLORS["defender"], label="the defender changes"),
        Line2D([], [], color=_COLORS["attacker"], label="the attacker changes"),
        Line2D([], [], color="black", ls="--", label="may be chance"),
        Line2D([], [], color="black", marker="o", mfc="#ddcc77", ls="", label="in a sink"),
    ]
    figure.legend(
        handles=handles, loc="outside upper center", frameon=False, ncols=2, fontsize="small"
    )
    return figure


def _ordered(found: ResponseGraph, part: int) -> list[str]:
    return list(dict.fromkeys(node[part] for node in found.graph))
