"""What solving costs: beside a bare call of the same library, and in seconds of one core."""

import statistics
import time

import numpy as np
from scipy.optimize import linprog

from arena.solvers.alpha_rank import alpha_rank
from arena.solvers.informed import per_example
from arena.solvers.payoffs import unit
from arena.solvers.programs import TIGHT
from arena.solvers.zero_sum import solve


def clocked(function, *arguments):
    """CPU seconds of a call, and what it returned."""
    start = time.process_time()
    found = function(*arguments)
    return time.process_time() - start, found


def textbook(a):
    """The maximin program as one would write it: a mixture and the value it secures."""
    m, n = a.shape
    return linprog(
        np.append(np.zeros(m), -1.0),
        A_ub=np.hstack([-a.T, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=np.append(np.ones(m), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * m + [(None, None)],
        method="highs",
    )


def same(a):
    """The program that `solve` makes, and nothing else."""
    m, n = a.shape
    return linprog(-np.ones(n), A_ub=unit(a) + 1, b_ub=np.ones(m), method="highs-ds", options=TIGHT)


def outcomes(generator, models, attacks, examples):
    """Z [D, A, E] of 0 and 1: examples, attacks and models differ in how hard they are."""
    strength = 0.2 + 0.6 * generator.random((models, attacks, 1))
    hard = generator.random(examples) + 0.5 * generator.random((models, attacks, examples))
    return (hard > strength).astype(float)


def rows(repeats):
    """Every figure by its name: what was found, and what is promised."""
    found = {
        "300 x 300 exact, to the same program bare": ([], 1.2),
        "300 x 300 exact, to the textbook's program": ([], 1.2),
        "1000 x 1000 to a gap of 1e-3, seconds": ([], 0.2),
        "per-example attacker, 20 x 10 x 10,000 of 0 and 1, seconds": ([], 30.0),
        "per-example attacker, 20 x 10 x 10,000 reals, seconds": ([], 30.0),
        "alpha-rank 50 x 50, alpha 1000, seconds": ([], 1.0),
    }
    figures = [figure for figure, _ in found.values()]
    for repeat in range(repeats):
        generator = np.random.default_rng(repeat)
        a = generator.random((300, 300))
        # In turns, twice, since the machine is not alone.
        turns = [[clocked(f, a) for f in (solve, same, textbook)] for _ in range(2)]
        ours, bare, book = (statistics.median(turn[i][0] for turn in turns) for i in range(3))
        assert turns[0][0][1].gap < 1e-9
        figures[0].append(ours / bare)
        figures[1].append(ours / book)
        a = generator.random((1000, 1000))
        seconds, solved = clocked(solve, a, 1e-3)
        assert solved.gap <= 1e-3
        figures[2].append(seconds)
        sizes = 20, 10, 10_000
        for place, z in ((3, outcomes(generator, *sizes)), (4, generator.random(sizes))):
            seconds, solved = clocked(per_example, z)
            assert solved.gap < 1e-9
            figures[place].append(seconds)
        a, b = generator.random((2, 50, 50))
        seconds, ranked = clocked(alpha_rank, a, b, 1000.0)
        assert np.isfinite(ranked.masses).all()
        figures[5].append(seconds)
    return found
