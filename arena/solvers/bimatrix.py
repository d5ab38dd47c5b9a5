"""All Nash equilibria of small bimatrix games, degenerate ones included.

A [m, n] are the row player's payoffs, B [m, n] the column player's. The method enumerates the
vertices of the best-response polytopes {x >= 0, x'B <= 1} and {y >= 0, Ay <= 1}, with payoffs moved
above 0 (Mangasarian 1964; von Stengel 2002, "Computing equilibria for two-person games", section
2). A pair of vertices in which every action is unused or a best reply is an *extreme* equilibrium.
All other equilibria are mixtures of these: maximal sets X x Y of which every pair is an equilibrium
span the maximal Nash subsets (Winkels 1979), and subsets that touch form a component (Avis,
Rosenberg, Savani & von Stengel 2010). A game without ties has isolated equilibria only. Accuracy
matrices tie often, and support enumeration then misses equilibria.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from arena.solvers.payoffs import ROUNDING, Array, bimatrix, lifted, span, unit

VERTICES = 200_000
"""The most candidate vertices, (m + n choose n), of a game: 10 x 10 passes (a few seconds)."""


@dataclass(frozen=True)
class Nash:
    """One equilibrium.

    Attributes:
        row: The row player's mixture [m].
        column: The column player's mixture [n].
        payoffs: The row player's payoff and the column player's.
        regret: The most that either player gains by deviating: 0 up to rounding.
    """

    row: Array
    column: Array
    payoffs: tuple[float, float]
    regret: float


@dataclass(frozen=True)
class NashSubset:
    """A maximal Nash subset, by its corners.

    Any mixture of the rows of `rows`, against any mixture of the rows of `columns`, is an
    equilibrium.

    Attributes:
        rows: Mixtures of the row player [k, m].
        columns: Mixtures of the column player [l, n].
    """

    rows: Array
    columns: Array


@dataclass(frozen=True)
class Equilibria:
    """All equilibria of a game.

    Attributes:
        extreme: The extreme equilibria.
        components: The connected components of the equilibria, each as its maximal Nash subsets.
        degenerate: Whether some mixture has more best replies than actions in use. Only then can a
            component be more than a point, and the number of equilibria infinite or even.
    """

    extreme: tuple[Nash, ...]
    components: tuple[tuple[NashSubset, ...], ...]
    degenerate: bool


@dataclass(frozen=True)
class _Vertices:
    """The vertices of a best-response polytope.

    Attributes:
        mixtures: [V, k].
        used: Whether a mixture uses an action, [V, k].
        best: Whether a reply is a best one to a mixture, [V, l].
    """

    mixtures: Array
    used: NDArray[np.bool_]
    best: NDArray[np.bool_]


def all_equilibria(row: ArrayLike, column: ArrayLike) -> Equilibria:
    """All Nash equilibria; payoffs that differ by less than 1e-9 of their span are tied.

    Args:
        row: A [m, n].
        column: B [m, n].

    Raises:
        ValueError: If the shapes differ, a payoff is not finite, or the game is too large.
        ArithmeticError: If an equilibrium found is none when verified.
    """
    a, b = bimatrix(row, column)
    m, n = a.shape
    if math.comb(m + n, n) > VERTICES:
        raise ValueError(
            f"a {m} x {n} game has {math.comb(m + n, n)} candidate vertices, more than {VERTICES}: "
            "drop dominated actions, or ask for one equilibrium of a zero-sum game"
        )
    rows, columns = _vertices(unit(b) + 1), _vertices(unit(a).T + 1)
    unfit = rows.used.astype(int) @ ~columns.best.T + (~rows.best).astype(int) @ columns.used.T
    pairs = [(int(v), int(w)) for v, w in np.argwhere(unfit == 0)]
    extreme = tuple(_verified(a, b, rows.mixtures[v], columns.mixtures[w]) for v, w in pairs)
    if not extreme:
        raise ArithmeticError(
            "no equilibrium was found, although every game has one: payoffs are too ill-conditioned"
        )
    degenerate = any((vertex.best.sum(1) > vertex.used.sum(1)).any() for vertex in (rows, columns))
    return Equilibria(extreme, _components(pairs, rows.mixtures, columns.mixtures), degenerate)


def _vertices(payoffs: Array) -> _Vertices:
    """The vertices except 0 of {z >= 0, z'payoffs <= 1}, payoffs [k, l] in [1, 2], as mixtures.

    A vertex with k' entries above 0 is the unique solution of k' of the inequalities, taken as
    equations. It is identified by its support and by all inequalities that are tight there.
    """
    k, replies = payoffs.shape
    found: dict[tuple[bytes, bytes], Array] = {}
    for size in range(1, min(k, replies) + 1):
        tight = np.array(list(combinations(range(replies), size)))
        for support in combinations(range(k), size):
            systems = payoffs[list(support)][:, tight].transpose(1, 2, 0)  # [T, size, size]
            singular = np.linalg.svd(systems, compute_uv=False)
            systems = systems[singular[:, -1] > ROUNDING * singular[:, 0]]
            z = np.zeros((len(systems), k))
            z[:, support] = np.linalg.solve(systems, np.ones((len(systems), size, 1)))[..., 0]
            used = z > ROUNDING
            slack = 1 - z @ payoffs
            inside = (used.sum(1) == size) & (z >= -ROUNDING).all(1) & (slack >= -ROUNDING).all(1)
            for row in np.flatnonzero(inside):
                key = used[row].tobytes(), (slack[row] <= ROUNDING).tobytes()
                found.setdefault(key, z[row] / z[row].sum())
    return _Vertices(
        np.array(list(found.values())),
        np.array([np.frombuffer(used, bool) for used, _ in found]),
        np.array([np.frombuffer(best, bool) for _, best in found]),
    )


def _verified(a: Array, b: Array, x: Array, y: Array) -> Nash:
    row_payoffs, column_payoffs = lifted(a) @ y, x @ lifted(b)
    row, column = float(x @ row_payoffs), float(y @ column_payoffs)
    regrets = float(row_payoffs.max()) - row, float(column_payoffs.max()) - column
    if regrets[0] > 10 * ROUNDING * span(a) or regrets[1] > 10 * ROUNDING * span(b):
        raise ArithmeticError(
            f"an equilibrium found leaves gains of {regrets[0]:.2g} and {regrets[1]:.2g}: payoffs "
            "are too ill-conditioned"
        )
    return Nash(x, y, (float(a.min()) + row, float(b.min()) + column), max(0.0, *regrets))


def _components(
    pairs: list[tuple[int, int]], rows: Array, columns: Array
) -> tuple[tuple[NashSubset, ...], ...]:
    graph = nx.Graph()
    graph.add_edges_from((("row", v), ("column", w)) for v, w in pairs)
    found = []
    for component in nx.connected_components(graph):
        sides = [[node for node in component if node[0] == side] for side in ("row", "column")]
        # Once each side is made a clique, the maximal cliques are the maximal bicliques.
        joined = graph.subgraph(component).copy()
        joined.add_edges_from(edge for side in sides for edge in combinations(side, 2))
        subsets = []
        for clique in nx.find_cliques(joined):
            v = sorted(i for side, i in clique if side == "row")
            w = sorted(i for side, i in clique if side == "column")
            if v and w:  # one whole side alone is a clique too, but no equilibrium
                subsets.append(((v, w), NashSubset(rows[v], columns[w])))
        found.append(tuple(subset for _, subset in sorted(subsets, key=lambda one: one[0])))
    return tuple(found)
