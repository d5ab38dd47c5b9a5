"""Bounds through a network: intervals forwards, linear functionals backwards.

Forwards, each node's interval follows from the intervals of the nodes before it. Backwards, a
functional of a node's values becomes a functional of the nodes before it: exactly through an affine
map, and through a nonlinear one by the lines that bound it over its input's interval. In the end it
is a functional of the input, whose extremes over the ball are known. That is CROWN (1811.00866,
section 3.2) and, with parallel lines, the dual network of 1711.00851 (Theorem 1). The same method
can refine the intervals that decide the lines.

Shapes: as in `operations`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from arena.certificates.ball import Ball, lowest
from arena.certificates.graph import Network
from arena.certificates.operations import Affine, Lines, Nonlinear, Span

_VALUES = 1 << 20
"""Coefficients of the widest node held at once: four times as many take twice the time per row."""


@dataclass(frozen=True)
class _Functionals:
    """P functionals of the values of several nodes.

    Attributes:
        rows: By a node's place, the coefficients [P, *shape] of its values.
        least: The lowest value [P] of what is added to the products.
        most: The highest value [P] of what is added to the products.
    """

    rows: dict[int, Tensor]
    least: Tensor
    most: Tensor

    def __neg__(self) -> "_Functionals":
        return _Functionals({p: -a for p, a in self.rows.items()}, -self.most, -self.least)

    def __getitem__(self, which: Tensor) -> "_Functionals":
        rows = {place: a[which] for place, a in self.rows.items()}
        return _Functionals(rows, self.least[which], self.most[which])


class Propagation:
    """The bounds of a network over the balls around one batch of inputs.

    Attributes:
        spans: The interval of each node's values, by its place.
    """

    def __init__(self, network: Network, ball: Ball, adaptive: bool, refine: bool) -> None:
        """Bounds every node.

        Args:
            network: The network.
            ball: The set that its inputs range over.
            adaptive: The choice of lower lines, as for `Nonlinear.lines`.
            refine: Whether backward bounds refine all intervals that decide lines, and not only
                those before the first nonlinear node.
        """
        self._nodes, self._ball, self._refine = network.nodes, ball, refine
        self._lines: dict[int, Lines] = {}
        self._constants: dict[int, Tensor] = {}
        self.spans = [ball.span]
        for place, node in enumerate(self._nodes[1:], start=1):
            assert node.operation is not None
            given = [self.spans[parent] for parent in node.parents]
            if isinstance(node.operation, Nonlinear):
                self._lines[place] = node.operation.lines(given[0], adaptive)
            if isinstance(node.operation, Affine):
                shape = self._nodes[node.parents[0]].shape
                self._constants[place] = node.operation(ball.x.new_zeros(1, *shape)).flatten()
            self.spans.append(node.operation.span(*given))
            readers = network.readers(place)
            if readers and not isinstance(node.operation, Nonlinear):
                self.spans[place] = self._refined(place, readers)

    def margins(self, y: Tensor, through: bool) -> Tensor:
        """Lower bounds [B, K] on logit_y - logit_k, infinite for k = y.

        Args:
            y: The labels [B].
            through: Whether to propagate the margins back to the input. Otherwise they end at the
                intervals of the last nonlinear nodes, which merges the last layer with the margin
                (1810.12715, section 3).
        """
        (classes,) = self._nodes[-1].shape
        own = torch.eye(classes, dtype=self._ball.x.dtype, device=y.device)
        rows = (own[y][:, None] - own).flatten(0, 1)
        owner = torch.arange(len(y), device=y.device).repeat_interleave(classes)
        found = []
        for part in self._parts(len(rows)):
            margin, of = self._begun(rows[part], len(self._nodes) - 1), owner[part]
            found.append(self._extremes(self._carried(margin, of) if through else margin, of)[0])
        return torch.cat(found).reshape(len(y), classes).masked_fill(own[y] == 1, math.inf)

    def _refined(self, place: int, readers: tuple[Nonlinear, ...]) -> Span:
        """The interval of a node that decides lines, refined if it is worth it."""
        node, span = self._nodes[place], self.spans[place]
        if node.mixed < math.inf and self._ball.dual is not None:
            return self._reached(place)
        if node.mixed <= 1 or not self._refine:  # after one layer the interval is exact
            return span
        # Sorted by value, since up to the first nonlinear node all examples share a value's row.
        wanted = torch.stack([reader.open(span) for reader in readers]).any(0).flatten(1)
        value, owner = wanted.T.nonzero(as_tuple=True)
        if len(value) == 0:
            return span
        parallel = all(lines.low is lines.high for lines in self._lines.values())
        learning = any(constant.requires_grad for constant in self._constants.values())
        least, most = [], []
        for part in self._parts(len(value)):
            values, which = torch.unique(value[part], return_inverse=True)
            given = (place, values, which, owner[part], parallel)
            if learning:  # computed again in the backward pass, which else keeps all coefficients
                ends = checkpoint(self._both, *given, use_reentrant=False)
            else:
                ends = self._both(*given)
            least.append(ends[0])
            most.append(ends[1])
        where = (owner, value)
        lower, upper = (end.flatten(1) for end in span)
        lower = lower.index_put(where, lower[where].maximum(torch.cat(least)))
        upper = upper.index_put(where, upper[where].minimum(torch.cat(most)))
        return Span(lower.reshape(span.lower.shape), upper.reshape(span.upper.shape))

    def _both(
        self, place: int, values: Tensor, which: Tensor, owner: Tensor, parallel: bool
    ) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds [P] of values of a node; one pass if all lines are parallel.

        Args:
            place: The node's place.
            values: Numbers of the node's values.
            which: The positions [P] in `values`.
            owner: The example [P] of each.
            parallel: Whether all lines before the node are parallel.
        """
        row = self._begun(self._rows(place, values), place)[which]
        least, most = self._extremes(self._carried(row, owner), owner)
        if not parallel:
            most = -self._extremes(self._carried(-row, owner), owner)[0]
        return least, most

    def _reached(self, place: int) -> Span:
        """The interval of a node that is affine in the input, by the rows' dual norm."""
        x, span, ball = self._ball.x.flatten(1), self.spans[place], self._ball
        assert ball.dual is not None
        values = torch.arange(math.prod(self._nodes[place].shape), device=x.device)
        middle, reach = [], []
        for part in self._parts(len(values)):
            row = self._begun(self._rows(place, values[part]), place)
            a = row.rows[0].flatten(1)
            middle.append(x @ a.T + row.least)
            reach.append(ball.radius * torch.linalg.vector_norm(a, ball.dual, 1))
        center = torch.cat(middle, 1).reshape(span.lower.shape)
        away = torch.cat(reach).reshape(span.lower.shape[1:])
        return Span(span.lower.maximum(center - away), span.upper.minimum(center + away))

    def _rows(self, place: int, values: Tensor) -> Tensor:
        """The functionals [P, *shape] that select single values of a node, by number [P]."""
        shape = self._nodes[place].shape
        rows = self._ball.x.new_zeros(len(values), math.prod(shape))
        return rows.scatter(1, values[:, None], 1.0).reshape(-1, *shape)

    def _parts(self, rows: int) -> Iterator[slice]:
        """Slices of `rows` functionals whose coefficients fit into memory."""
        step = max(1, _VALUES // max(math.prod(node.shape) for node in self._nodes))
        return (slice(start, start + step) for start in range(0, rows, step))

    def _begun(self, a: Tensor, place: int) -> _Functionals:
        """Functionals `a` [P, *shape] of a node, in terms of the input and nonlinear nodes."""
        nothing = a.new_zeros(len(a))
        return self._carried(_Functionals({place: a}, nothing, nothing), None)

    def _carried(self, of: _Functionals, owner: Tensor | None) -> _Functionals:
        """Functionals of earlier nodes that bound the given ones.

        Args:
            of: The functionals.
            owner: The example [P] of each, to propagate through nonlinear nodes to the input; None
                stops at nonlinear nodes.

        Returns:
            The functionals; `most` is infinite after lines that are not parallel.
        """
        rows, least, most = dict(of.rows), of.least, of.most
        for place in range(max(rows, default=0), 0, -1):
            if place not in rows or (place in self._lines and owner is None):
                continue
            a, node = rows.pop(place), self._nodes[place]
            assert node.operation is not None
            if place in self._constants:
                constant = a.flatten(1) @ self._constants[place]
                least, most = least + constant, most + constant
            if place in self._lines:
                assert owner is not None and isinstance(node.operation, Nonlinear)
                lines = self._lines[place]
                offset, flat = lines.offset.flatten(1)[owner], a.flatten(1)
                least = least + (flat.clamp(max=0) * offset).sum(1)
                spread = node.operation.spread(a)
                if lines.low is lines.high:
                    most = most + (flat.clamp(min=0) * offset).sum(1)
                    a = spread * lines.high[owner]
                else:
                    most = torch.full_like(most, math.inf)
                    a = spread * torch.where(spread > 0, lines.low[owner], lines.high[owner])
            a = node.operation.transposed(a)
            for parent in node.parents:
                rows[parent] = rows[parent] + a if parent in rows else a
        return _Functionals(rows, least, most)

    def _extremes(self, of: _Functionals, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds [P] over the ball of each `owner` [P] and the nodes' intervals."""
        least, most = of.least, of.most
        for place, a in of.rows.items():
            if place == 0:
                least = least + self._ball.lowest(a, owner)
                most = most - self._ball.lowest(-a, owner)
            else:
                least = least + lowest(a, self.spans[place], owner)
                most = most - lowest(-a, self.spans[place], owner)
        return least, most
