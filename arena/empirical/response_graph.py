"""The best-response graph of pure profiles, with the certainty of each edge.

A node is a profile (model, attack). An edge leads to the profile in which one player has changed
its move to its best response. A graph of *better* responses would be one big component. The graph
of best responses is sparse and shows where adaptive play goes: it ends in a sink component, which
is a pure equilibrium or a cycle. Costs are estimates, so an edge is *certain* only if the interval
of its paired difference excludes 0, at a level that holds at once for all pairs of profiles that
could be an edge (Bonferroni). Sinks are found for both readings: of all edges, and of the certain
ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from arena.empirical.game import EmpiricalGame, mean_payoffs
from arena.estimate import Estimate, over_seeds
from arena.solvers.alpha_rank import alpha_rank
from arena.solvers.payoffs import ROUNDING, Array, span

Profile = tuple[str, str]
"""The name of a model and the name of an attack."""


@dataclass(frozen=True)
class ResponseGraph:
    """Each player's best responses.

    Attributes:
        graph: A networkx DiGraph over profiles (model, attack). A node has a `mass`, by alpha-rank
            at infinite intensity. An edge has the `player` who moves, its `gain` (an `Estimate` at
            `level`), and a flag `certain`.
        level: The level of each gain's interval, such that all hold at once.
    """

    graph: Any
    level: float

    def sinks(self, certain: bool = False) -> tuple[tuple[Profile, ...], ...]:
        """The components that play by best responses cannot leave.

        A single profile is a pure equilibrium, several are a cycle.

        Args:
            certain: Whether to read the certain edges only. A profile that no certain edge leaves
                is then a sink, too.
        """
        read = self.certain if certain else self.graph
        whole = nx.condensation(read)
        found = [
            tuple(sorted(whole.nodes[node]["members"]))
            for node in whole
            if whole.out_degree(node) == 0
        ]
        return tuple(sorted(found))

    def cycles(self, certain: bool = False) -> tuple[tuple[Profile, ...], ...]:
        """The components in which play by best responses can cycle for ever.

        Args:
            certain: Whether to read the certain edges only.
        """
        read = self.certain if certain else self.graph
        components = nx.strongly_connected_components(read)
        return tuple(sorted(tuple(sorted(each)) for each in components if len(each) > 1))

    @property
    def certain(self) -> Any:
        """The graph of certain edges only, over the same profiles."""
        found = nx.DiGraph()
        sure = self.graph.edges.data("certain")
        found.add_edges_from((one, other) for one, other, certain in sure if certain)
        found.add_nodes_from(self.graph)
        return found

    @property
    def met(self) -> tuple[Profile, ...]:
        """The profiles that two best responses in a row lead to, and those without an edge out.

        Play from any profile stays among these from its second change on.
        """
        once = {other for _, other in self.graph.edges}
        twice = {other for one, other in self.graph.edges if one in once}
        return tuple(n for n in self.graph if n in twice or not self.graph.out_degree(n))


def response_graph(games: Sequence[EmpiricalGame], level: float = 0.95) -> ResponseGraph:
    """The best-response graph of a game that was played with one or several seeds.

    Args:
        games: One per seed, of the same models and attacks.
        level: The probability, in (0, 1), with which all intervals hold at once.

    Raises:
        ValueError: If cells are missing, or the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} must be between 0 and 1")
    models, attacks = games[0].models, games[0].attacks
    defender = [game.payoffs("defender") for game in games]
    attacker = [game.payoffs("attacker") for game in games]
    u, w = mean_payoffs(games, "defender"), mean_payoffs(games, "attacker")
    size = len(models), len(attacks)
    pairs = size[0] * size[1] * (size[0] + size[1] - 2) // 2
    each = 1 - (1 - level) / max(1, pairs)
    graph = nx.DiGraph()
    masses = alpha_rank(u, w).masses
    for d, a in np.ndindex(size):
        graph.add_node((models[d], attacks[a]), mass=float(masses[d, a]))
    for a, attack in enumerate(attacks):
        for d, better in _replies(u[:, a]):
            gain = over_seeds([z[better, a] - z[d, a] for z in defender], each)
            _join(graph, (models[d], attack), (models[better], attack), "defender", gain)
    for d, model in enumerate(models):
        for a, better in _replies(w[d]):
            gain = over_seeds([z[d, better] - z[d, a] for z in attacker], each)
            _join(graph, (model, attacks[a]), (model, attacks[better]), "attacker", gain)
    return ResponseGraph(graph, each)


def _replies(payoffs: Array) -> list[tuple[int, int]]:
    """From each move that is not best to each best one, by payoffs [moves]."""
    best: NDArray[np.bool_] = payoffs >= payoffs.max() - ROUNDING * span(payoffs)
    return [(int(i), int(j)) for i in np.flatnonzero(~best) for j in np.flatnonzero(best)]


def _join(graph: Any, one: Profile, other: Profile, player: str, gain: Estimate) -> None:
    graph.add_edge(one, other, player=player, gain=gain, certain=gain.low > 0)
