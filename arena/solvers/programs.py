"""The linear program behind commitments, correlated equilibria and informed attackers, by HiGHS.

minimize c'(x, t)  subject to  R (x, t) <= 0,  x a mixture [m],  t [k] free
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from arena.solvers.payoffs import Array, normalized

Method = Literal["highs-ds", "highs-ipm"]

TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
"""HiGHS's default of 1e-7, which is absolute, would show in the gaps."""


@dataclass(frozen=True)
class Optimum:
    """The solution of the program.

    Attributes:
        mixture: x [m].
        free: t [k].
        prices: The dual price of each row of R, at least 0.
    """

    mixture: Array
    free: Array
    prices: Array


def best_mixture(
    cost: Array,
    rows: Array | csr_array,
    free: int = 0,
    method: Method = "highs-ds",
) -> Optimum | None:
    """The optimal mixture and free variables; None if no mixture is feasible.

    Args:
        cost: c [m + k]; scale it and the rows to about 1, since the solver's tolerances are
            absolute.
        rows: R [number of rows, m + k].
        free: k; the free variables are the last ones.
        method: HiGHS's simplex, or its interior point method for large programs.

    Raises:
        ArithmeticError: If HiGHS fails, or t is unbounded.
    """
    m = len(cost) - free
    solved = linprog(
        cost,
        A_ub=rows,
        b_ub=np.zeros(rows.shape[0]),
        A_eq=csr_array(np.append(np.ones(m), np.zeros(free))[None]),
        b_eq=[1.0],
        bounds=np.array([(0.0, np.inf)] * m + [(-np.inf, np.inf)] * free),
        method=method,
        options=TIGHT,
    )
    if solved.status == 2:
        return None
    if solved.status != 0:
        raise ArithmeticError(f"HiGHS did not solve a program over {m} actions: {solved.message}")
    return Optimum(normalized(solved.x[:m]), solved.x[m:], np.maximum(-solved.ineqlin.marginals, 0))
