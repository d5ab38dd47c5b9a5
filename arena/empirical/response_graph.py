"""The best-response graph of pure profiles, with how sure each of its edges is.

A node is a profile (model, attack); an edge leads to what a player does better by changing its own
move, as well as it can. Of *better* responses the graph would be one big component; of best ones it
is sparse, and says where adaptive play goes: it ends in a sink component, a pure equilibrium or a
cycle. Costs are estimates, so an edge is *certain* only if the interval of the paired difference
leaves out 0, at a level that holds for all pairs that could have been an edge at once (Bonferroni).
Sinks are read both ways, of all edges and of the certain ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from arena.empirical.game import EmpiricalGame
from arena.estimate import Estimate, over_seeds
from arena.solvers.alpha_rank import alpha_rank
from arena.solvers.payoffs import ROUNDING, Array, span

Profile = tuple[str, str]
"""A model and an attack."""


@dataclass(frozen=True)
class ResponseGraph:
    """What each player would do next.

    Attributes:
        graph: A networkx DiGraph over profiles (model, attack). Nodes have a `mass`, alpha-rank's
            at infinite intensity. Edges have a `player`, who moves, its `gain`, an estimate at the
            simultaneous level, and whether they are `certain`.
        level: The level of each gain's interval.
    """

    graph: Any
    level: float

    def sinks(self, certain: bool = False) -> tuple[tuple[Profile, ...], ...]:
        """What play by best responses cannot leave: components without a way out.

        A profile alone is a pure equilibrium, several are a cycle. The profiles that no best
        response leads to are none of them but in the reading of certain edges, where what is not
        certain is as good as not there.

        Args:
            certain: Whether edges count that sampling may have made.
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
        """The components in which play by best responses can go round for ever."""
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
        """The profiles that two best responses in a row lead to, or that have none better.

        Play from anywhere stays among these from its second change on.
        """
        once = {other for _, other in self.graph.edges}
        twice = {other for one, other in self.graph.edges if one in once}
        return tuple(n for n in self.graph if n in twice or not self.graph.out_degree(n))


def response_graph(games: Sequence[EmpiricalGame], level: float = 0.95) -> ResponseGraph:
    """The graph of a game that was played with one or several seeds.

    Args:
        games: One a seed, of the same models and attacks.
        level: How sure all certain edges are at once.

    Raises:
        ValueError: If cells are missing, or the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} must be between 0 and 1")
    models, attacks = games[0].models, games[0].attacks
    defender = [game.payoffs("defender") for game in games]
    attacker = [game.payoffs("attacker") for game in games]
    u, w = (np.mean([z.mean(2) for z in seeds], axis=0) for seeds in (defender, attacker))
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
    """From each move that is not best to each that is."""
    best: NDArray[np.bool_] = payoffs >= payoffs.max() - ROUNDING * span(payoffs)
    return [(int(i), int(j)) for i in np.flatnonzero(~best) for j in np.flatnonzero(best)]


def _join(graph: Any, one: Profile, other: Profile, player: str, gain: Estimate) -> None:
    graph.add_edge(one, other, player=player, gain=gain, certain=gain.low > 0)
