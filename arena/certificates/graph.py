"""A network as a graph of operations, and the trace of a run from which it is made."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from arena.certificates.operations import Nonlinear, Operation


@dataclass(frozen=True)
class Node:
    """An operation on the values of earlier nodes.

    Attributes:
        operation: The operation; None for the input.
        parents: The places of the nodes that it reads.
        shape: The shape of its values for one example.
        mixed: The number of layers since the input in which values mix; infinite after a nonlinear
            operation.
    """

    operation: Operation | None
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    mixed: float


@dataclass(frozen=True)
class Network:
    """The nodes that the output depends on, each after those it reads.

    Attributes:
        nodes: The input first, the output last.
    """

    nodes: tuple[Node, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The output [B, K] for inputs `x` [B, ...]."""
        values = [x]
        for node in self.nodes[1:]:
            assert node.operation is not None
            values.append(node.operation(*(values[parent] for parent in node.parents)))
        return values[-1]

    def readers(self, place: int) -> tuple[Nonlinear, ...]:
        """The nonlinear operations that read the node."""
        readers = (node.operation for node in self.nodes if place in node.parents)
        return tuple(o for o in readers if isinstance(o, Nonlinear))


class Unbounded(ValueError):
    """A network does something that cannot be bounded; the message says what."""


class Trace:
    """The nodes of a run so far, and the tensors that hold their values.

    Args:
        given: The input of the run, two examples [2, ...].
    """

    def __init__(self, given: Tensor) -> None:
        self.nodes = [Node(None, (), tuple(given.shape[1:]), 0)]
        # The tensor is kept so that no other gets its id, and its version to notice writes.
        self._places: dict[int, tuple[int, Tensor, int]] = {}
        self.record(given, 0)

    def record(self, tensor: Tensor, place: int) -> None:
        """Records that the tensor holds the values of the node at `place`."""
        self._places[id(tensor)] = (place, tensor, tensor._version)

    def place(self, value: Any) -> int | None:
        """The place of the node that has this value; None for a constant."""
        found = self._places.get(id(value))
        return None if found is None else found[0]

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor comes from the input.

        Raises:
            Unbounded: If it was overwritten after it was recorded.
        """
        if id(tensor) not in self._places:
            return False
        if self._places[id(tensor)][2] != tensor._version:
            raise Unbounded("it overwrites a value that it reads again")
        return True

    def only(self, x: Any, *constants: Any) -> int:
        """The place of `x`, the only one of these arguments that comes from the input.

        Raises:
            Unbounded: If `x` does not come from the input, or a constant does.
        """
        place = self.place(x)
        if place is None or any(self.place(constant) is not None for constant in constants):
            raise Unbounded("it multiplies what depends on its input, or divides by it")
        return place

    def add(self, operation: Operation, shape: Sequence[int], *parents: int) -> int:
        """Adds a node of values [B, *shape] and returns its place."""
        mixed = sum(self.nodes[parent].mixed for parent in parents) + operation.mixes
        if isinstance(operation, Nonlinear):
            mixed = math.inf
        self.nodes.append(Node(operation, parents, tuple(shape), mixed))
        return len(self.nodes) - 1

    def network(self, made: Any) -> Network:
        """The nodes that `made`, the result of the run, depends on.

        Raises:
            Unbounded: If the result is not logits [2, K] that depend on the input.
        """
        last = self.place(made)
        if last is None or not self.holds(made) or made.dim() != 2 or len(made) != 2:
            raise Unbounded("it does not return logits [B, K] that depend on its input")
        needed = {0, last}
        for place in range(last, 0, -1):
            if place in needed:
                needed.update(self.nodes[place].parents)
        moved = {old: new for new, old in enumerate(sorted(needed))}
        nodes = []
        for place in moved:
            node = self.nodes[place]
            parents = tuple(moved[parent] for parent in node.parents)
            nodes.append(Node(node.operation, parents, node.shape, node.mixed))
        return Network(tuple(nodes))
