"""A network read as a graph of operations that can be bounded.

The module is run once on two dummy inputs while torch reports every function that it calls
(`TorchFunctionMode`). So a network is read by what it does: modules, functions and operators alike,
whatever Python lies between them, as long as that looks at no value. What would look at one, or is
not in the list below, is refused by its name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from arena.certificates.operations import (
    Convolution,
    Linear,
    MaxPool,
    Nonlinear,
    Operation,
    ReLU,
    Reshape,
    Scale,
    Sum,
)
from arena.learners.preprocessing import Preprocessed

KNOWN = (
    "Linear, Conv2d, BatchNorm1d, BatchNorm2d, ReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, "
    "Flatten, Dropout, Identity, residual sums and normalisation by constants"
)
_LAYERS = (
    nn.Linear,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
)


@dataclass(frozen=True)
class Node:
    """An operation on the values of earlier nodes, by their places; the input has no operation.

    Attributes:
        operation: What it does.
        parents: Places of the nodes that it reads.
        shape: Shape of its values for one example.
        mixed: Layers since the input in which values mix; infinite behind a nonlinear operation.
    """

    operation: Operation | None
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    mixed: float


@dataclass(frozen=True)
class Network:
    """The nodes that matter to the output, each after those it reads: input first, output last."""

    nodes: tuple[Node, ...]

    def readers(self, place: int) -> tuple[Nonlinear, ...]:
        """The nonlinear operations that read the node."""
        readers = (node.operation for node in self.nodes if place in node.parents)
        return tuple(o for o in readers if isinstance(o, Nonlinear))


class _Unbounded(ValueError):
    """A function that has no bounds; the message says which."""


def check(module: nn.Module) -> None:
    """Checks what can be seen without an input: the layers and what stands before the network.

    Raises:
        ValueError: Naming the first layer that cannot be bounded, and those that can.
    """
    for name, part in module.named_modules():
        place = f"layer {name!r}" if name else "the network"
        if getattr(part, "random", False) is True:
            raise ValueError(f"{place} ({type(part).__name__}) flips coins: no bound covers that")
        if isinstance(part, Preprocessed):
            raise ValueError(
                f"{place} transforms its inputs by {type(part.preprocess).__name__}, which cannot "
                "be bounded; certify the model without it"
            )
        own = type(part).__module__.startswith("torch.nn.") and not any(part.children())
        if own and not isinstance(part, (*_LAYERS, nn.Sequential, nn.ModuleList)):
            raise ValueError(
                f"{place} is a {type(part).__name__}, which cannot be bounded; these can: {KNOWN}"
            )


@torch.no_grad()
def read(module: nn.Module, x: Tensor) -> Network:
    """The graph of a module, as in evaluation mode, for inputs like `x` [B, ...].

    It holds the module's own parameters: bounds are differentiable in them.

    Raises:
        ValueError: Naming what cannot be bounded, and what can.
    """
    check(module)
    training = [part for part in module.modules() if part.training]
    module.eval()
    given = x.new_zeros(2, *x.shape[1:])
    recorder = _Recorder(given)
    try:
        with recorder:
            made = module(given)
        return recorder.network(made)
    except _Unbounded as error:
        raise ValueError(
            f"{type(module).__name__} cannot be bounded: {error}; these can: {KNOWN}"
        ) from None
    finally:
        for part in training:
            part.training = True


class _Recorder(TorchFunctionMode):
    """Writes a node for every function called on what comes from the input."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self._nodes = [Node(None, (), tuple(given.shape[1:]), 0)]
        # The tensor is kept, since another could get its id; so is its version, to notice writes.
        self._places: dict[int, tuple[int, Tensor, int]] = {}
        self._record(given, 0)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function; records it if it reads what comes from the input."""
        kwargs = kwargs or {}
        touched = any(self._recorded(value) for value in _tensors((args, kwargs)))
        before = tuple(args[0].shape) if touched and isinstance(args[0], Tensor) else ()
        made = func(*args, **kwargs)
        if not touched:
            return made
        name = getattr(func, "__name__", str(func))
        if name in _ASKED or (name == "__get__" and not isinstance(made, Tensor)):
            return made
        reader = _READERS.get(name.strip("_"))
        if reader is None or not isinstance(made, Tensor) or made.dtype != torch.float32:
            raise _Unbounded(f"it calls {name}")
        self._record(made, reader(self, _Call(name.strip("_"), made, before), *args, **kwargs))
        return made

    def _recorded(self, tensor: Tensor) -> bool:
        if id(tensor) not in self._places:
            return False
        if self._places[id(tensor)][2] != tensor._version:
            raise _Unbounded("it overwrites a value that it reads again")
        return True

    def _record(self, tensor: Tensor, place: int) -> None:
        self._places[id(tensor)] = (place, tensor, tensor._version)

    def place(self, value: Any) -> int | None:
        """The place of the node that has this value, None for a constant."""
        found = self._places.get(id(value))
        return None if found is None else found[0]

    def add(self, operation: Operation, shape: Sequence[int], *parents: int) -> int:
        """A new node, of values [B, *shape]; its place."""
        mixed = sum(self._nodes[p].mixed for p in parents) + operation.mixes
        if isinstance(operation, Nonlinear):
            mixed = math.inf
        self._nodes.append(Node(operation, parents, tuple(shape), mixed))
        return len(self._nodes) - 1

    def network(self, made: Any) -> Network:
        """The nodes that `made`, the module's answer, depends on."""
        last = self.place(made) if isinstance(made, Tensor) else None
        if last is None or made.dim() != 2 or len(made) != 2:
            raise _Unbounded("it does not return logits [B, K] that depend on its input")
        self._recorded(made)
        needed = {last}
        for place in range(last, -1, -1):
            if place in needed:
                needed.update(self._nodes[place].parents)
        moved = {old: new for new, old in enumerate(sorted(needed | {0}))}
        nodes = (self._nodes[place] for place in moved)
        return Network(
            tuple(
                Node(n.operation, tuple(moved[p] for p in n.parents), n.shape, n.mixed)
                for n in nodes
            )
        )


@dataclass(frozen=True)
class _Call:
    """What was called, what it returned, and the shape [2, ...] of its first argument before."""

    name: str
    made: Tensor
    before: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.made.shape[1:])


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first


def _only(recorder: _Recorder, x: Any, *constants: Any) -> int:
    """The place of the one argument that comes from the input."""
    place = recorder.place(x)
    if place is None or any(recorder.place(c) is not None for c in constants):
        raise _Unbounded("its weights depend on its input")
    return place


# A reader takes the recorder, the call, and the function's own arguments; it returns the place of
# the node that has the function's value.


def _linear(r: _Recorder, call: _Call, input: Any, weight: Any, bias: Any = None) -> int:
    place = _only(r, input, weight, bias)
    if len(call.shape) != 1:
        raise _Unbounded(f"a Linear layer of inputs of shape {list(call.before[1:])}; flatten them")
    return r.add(Linear(weight, bias), call.shape, place)


def _conv2d(
    r: _Recorder,
    call: _Call,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> int:
    place = _only(r, input, weight, bias)
    if isinstance(padding, str):
        raise _Unbounded(f"a convolution with padding={padding!r}; give it as a number")
    how = (_pair(stride), _pair(padding), _pair(dilation), groups)
    return r.add(Convolution(weight, bias, call.before[1:], *how), call.shape, place)


def _batch_norm(
    r: _Recorder,
    call: _Call,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> int:
    place = _only(r, input, running_mean, running_var, weight, bias)
    if training:
        raise _Unbounded("its BatchNorm takes the statistics of the batch, not running ones")
    # The recorder runs without gradients; the layer's own parameters are to keep theirs.
    with torch.enable_grad():
        factor = (running_var + eps).rsqrt() * (1.0 if weight is None else weight)
        shift = (0.0 if bias is None else bias) - running_mean * factor
        wide = (-1, *(1,) * (len(call.shape) - 1))
        return r.add(Scale(factor.reshape(wide), shift.reshape(wide)), call.shape, place)


def _relu(r: _Recorder, call: _Call, input: Any, inplace: bool = False) -> int:
    return r.add(ReLU(), call.shape, _only(r, input))


def _clamp(r: _Recorder, call: _Call, input: Any, min: Any = None, max: Any = None) -> int:
    if min != 0 or max is not None:
        raise _Unbounded(f"it clamps to [{min}, {max}]; only to [0, None] as ReLU does")
    return _relu(r, call, input)


def _max_pool2d(
    r: _Recorder,
    call: _Call,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> int:
    if ceil_mode:
        raise _Unbounded("its MaxPool2d has ceil_mode=True; pad instead")
    how = (_pair(kernel_size), _pair(stride or kernel_size), _pair(padding), _pair(dilation))
    return r.add(MaxPool(call.before[1:], *how), call.shape, _only(r, input))


def _avg_pool2d(
    r: _Recorder,
    call: _Call,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> int:
    if ceil_mode or (not count_include_pad and _pair(padding) != (0, 0)):
        raise _Unbounded("its AvgPool2d counts cells that differ from window to window")
    kernel, place = _pair(kernel_size), _only(r, input)
    return _averaged(r, call, place, kernel, _pair(stride or kernel), padding, divisor_override)


def _adaptive_avg_pool2d(r: _Recorder, call: _Call, input: Any, output_size: Any) -> int:
    high, wide = call.before[2:]
    rows, columns = call.shape[1:]
    if high % rows or wide % columns:
        raise _Unbounded(f"its AdaptiveAvgPool2d has windows of unequal size on {high} x {wide}")
    kernel = (high // rows, wide // columns)
    return _averaged(r, call, _only(r, input), kernel, kernel)


def _averaged(
    r: _Recorder,
    call: _Call,
    place: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Any = 0,
    divisor: int | None = None,
) -> int:
    channels = call.before[1]
    share = 1.0 / (divisor or math.prod(kernel))
    weight = call.made.new_full((channels, 1, *kernel), share)
    how = (stride, _pair(padding), (1, 1), channels)
    return r.add(Convolution(weight, None, call.before[1:], *how), call.shape, place)


def _mean(r: _Recorder, call: _Call, input: Any, dim: Any = None, keepdim: bool = False) -> int:
    dims = {d % 4 for d in ((dim,) if isinstance(dim, int) else dim or ())}
    if len(call.before) != 4 or dims != {2, 3}:
        raise _Unbounded("it takes a mean; only that over the plane [H, W] of [B, C, H, W]")
    channels, *plane = call.before[1:]
    whole = (plane[0], plane[1])
    pooled = _Call(call.name, call.made.reshape(2, channels, 1, 1), call.before)
    place = _averaged(r, pooled, _only(r, input), whole, whole)
    return r.add(Reshape((channels, 1, 1), call.shape), call.shape, place)


def _reshape(r: _Recorder, call: _Call, input: Any, *args: Any, **kwargs: Any) -> int:
    if len(call.made) != 2:
        raise _Unbounded(f"its {call.name} mixes the examples of a batch")
    return r.add(Reshape(call.before[1:], call.shape), call.shape, _only(r, input))


def _same(r: _Recorder, call: _Call, input: Any, *args: Any, **kwargs: Any) -> int:
    return _only(r, input)


def _dropout(
    r: _Recorder, call: _Call, input: Any, p: float = 0.5, training: bool = True, inplace: Any = 0
) -> int:
    if training:
        raise _Unbounded("its dropout flips coins in evaluation mode")
    return _only(r, input)


def _sum(r: _Recorder, call: _Call, input: Any, other: Any, alpha: float = 1) -> int:
    """`input` + `other`, either of which may be a constant; `alpha` scales `other`."""
    first, second = r.place(input), r.place(other)
    if first is None or second is None:
        value, place = (input, second) if first is None else (other, first)
        ours = alpha if first is None else 1
        return _scaled(r, call, place, ours, value if first is None else _times(value, alpha))
    if r._nodes[first].shape != r._nodes[second].shape:
        raise _Unbounded("it adds values of unequal shapes")
    if alpha != 1:
        second = r.add(_scale(call, alpha, 0), call.shape, second)
    return r.add(Sum(), call.shape, first, second)


def _difference(r: _Recorder, call: _Call, input: Any, other: Any, alpha: float = 1) -> int:
    return _sum(r, call, input, other, -alpha)


def _reversed_difference(r: _Recorder, call: _Call, input: Any, other: Any) -> int:
    return _sum(r, call, other, input, -1)


def _negative(r: _Recorder, call: _Call, input: Any) -> int:
    return _scaled(r, call, _only(r, input), -1, 0)


def _product(r: _Recorder, call: _Call, input: Any, other: Any) -> int:
    value, x = (input, other) if r.place(input) is None else (other, input)
    return _scaled(r, call, _only(r, x, value), value, 0)


def _quotient(r: _Recorder, call: _Call, input: Any, other: Any) -> int:
    place = _only(r, input, other)
    return _scaled(r, call, place, 1 / other, 0)


def _times(value: Any, alpha: float) -> Any:
    return value if alpha == 1 else value * alpha


def _scaled(r: _Recorder, call: _Call, place: int | None, factor: Any, shift: Any) -> int:
    assert place is not None
    if r._nodes[place].shape != call.shape:
        raise _Unbounded("a constant changes the shape of its values")
    return r.add(_scale(call, factor, shift), call.shape, place)


def _scale(call: _Call, factor: Any, shift: Any) -> Scale:
    """Constants, numbers or tensors that broadcast to [B, *shape], as those of one example."""

    def one(value: Any) -> Tensor:
        made = value if isinstance(value, Tensor) else call.made.new_tensor(float(value))
        if made.dim() > len(call.shape):
            if len(made) != 1:
                raise _Unbounded("a constant differs from example to example")
            made = made[0]
        return made.to(call.made)

    return Scale(one(factor), one(shift))


_ASKED = {"size", "dim", "ndimension", "__len__", "numel", "is_floating_point", "is_contiguous"}
"""What may be asked of a value without looking at it."""

_READERS: dict[str, Callable[..., int]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "clamp": _clamp,
    "neg": _negative,
    "rsub": _reversed_difference,
    "div": _quotient,
    "truediv": _quotient,
    **dict.fromkeys(("relu",), _relu),
    **dict.fromkeys(("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten"), _reshape),
    **dict.fromkeys(("contiguous", "to", "float", "clone", "detach"), _same),
    **dict.fromkeys(("dropout", "dropout2d"), _dropout),
    **dict.fromkeys(("add", "radd", "iadd"), _sum),
    **dict.fromkeys(("sub", "isub"), _difference),
    **dict.fromkeys(("mul", "rmul", "imul"), _product),
}
