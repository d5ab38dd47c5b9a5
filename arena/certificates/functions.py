"""How each function of torch that can be bounded becomes a node.

A reader takes the trace, the call, and the function's own arguments under torch's names. It returns
the place of the node that has the function's value, and raises `Unbounded` if there is no bound.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arena.certificates.graph import Trace, Unbounded
from arena.certificates.operations import (
    Convolution,
    FullyConnected,
    MaxPool,
    ReLU,
    Reshape,
    Scale,
    Sum,
)


@dataclass(frozen=True)
class Call:
    """A call of a function.

    Attributes:
        name: The function's name.
        made: What it returned, [2, ...].
        before: The shape [2, ...] of its first argument before the call.
    """

    name: str
    made: Tensor
    before: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its result for one example."""
        return tuple(self.made.shape[1:])


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first


def _linear(trace: Trace, call: Call, input: Any, weight: Any, bias: Any = None) -> int:
    place = trace.only(input, weight, bias)
    if len(call.shape) != 1:
        raise Unbounded(f"a Linear layer of inputs of shape {list(call.before[1:])}; flatten them")
    return trace.add(FullyConnected(weight, bias), call.shape, place)


def _conv2d(
    trace: Trace,
    call: Call,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> int:
    place = trace.only(input, weight, bias)
    if isinstance(padding, str):
        raise Unbounded(f"a convolution with padding={padding!r}; give it as a number")
    how = (_pair(stride), _pair(padding), _pair(dilation), groups)
    return trace.add(Convolution(weight, bias, call.before[1:], *how), call.shape, place)


def _batch_norm(
    trace: Trace,
    call: Call,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> int:
    place = trace.only(input, running_mean, running_var, weight, bias)
    if training:
        raise Unbounded(
            "its BatchNorm takes the statistics of the batch; make it track running ones"
        )
    # The recorder runs without gradients, but the layer's own parameters need theirs.
    with torch.enable_grad():
        factor = (running_var + eps).rsqrt() * (1.0 if weight is None else weight)
        shift = (0.0 if bias is None else bias) - running_mean * factor
        wide = (-1, *(1,) * (len(call.shape) - 1))
        return trace.add(Scale(factor.reshape(wide), shift.reshape(wide)), call.shape, place)


def _relu(trace: Trace, call: Call, input: Any, inplace: bool = False) -> int:
    return trace.add(ReLU(), call.shape, trace.only(input))


def _clamp(trace: Trace, call: Call, input: Any, min: Any = None, max: Any = None) -> int:
    if min != 0 or max is not None:
        raise Unbounded(f"it clamps to [{min}, {max}]; only [0, None], as of ReLU, has bounds")
    return _relu(trace, call, input)


def _max_pool2d(
    trace: Trace,
    call: Call,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> int:
    if ceil_mode:
        raise Unbounded("its MaxPool2d has ceil_mode=True; pad instead")
    how = (_pair(kernel_size), _pair(stride or kernel_size), _pair(padding), _pair(dilation))
    return trace.add(MaxPool(call.before[1:], *how), call.shape, trace.only(input))


def _avg_pool2d(
    trace: Trace,
    call: Call,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> int:
    if ceil_mode or (not count_include_pad and _pair(padding) != (0, 0)):
        raise Unbounded("its AvgPool2d divides by a count that differs between windows")
    kernel, place = _pair(kernel_size), trace.only(input)
    return _averaged(trace, call, place, kernel, _pair(stride or kernel), padding, divisor_override)


def _adaptive_avg_pool2d(trace: Trace, call: Call, input: Any, output_size: Any) -> int:
    high, wide = call.before[2:]
    rows, columns = call.shape[1:]
    if high % rows or wide % columns:
        raise Unbounded(f"its AdaptiveAvgPool2d has windows of unequal size on {high} x {wide}")
    kernel = (high // rows, wide // columns)
    return _averaged(trace, call, trace.only(input), kernel, kernel)


def _averaged(
    trace: Trace,
    call: Call,
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
    return trace.add(Convolution(weight, None, call.before[1:], *how), call.shape, place)


def _mean(trace: Trace, call: Call, input: Any, dim: Any = None, keepdim: bool = False) -> int:
    dims = {d % 4 for d in ((dim,) if isinstance(dim, int) else dim or ())}
    if len(call.before) != 4 or dims != {2, 3}:
        raise Unbounded("it takes a mean other than that over the plane [H, W] of [B, C, H, W]")
    channels, *plane = call.before[1:]
    whole = (plane[0], plane[1])
    pooled = Call(call.name, call.made.reshape(2, channels, 1, 1), call.before)
    place = _averaged(trace, pooled, trace.only(input), whole, whole)
    return trace.add(Reshape((channels, 1, 1), call.shape), call.shape, place)


def _reshape(trace: Trace, call: Call, input: Any, *args: Any, **kwargs: Any) -> int:
    if len(call.made) != 2:
        raise Unbounded(f"its {call.name} mixes the examples of a batch")
    return trace.add(Reshape(call.before[1:], call.shape), call.shape, trace.only(input))


def _same(trace: Trace, call: Call, input: Any, *args: Any, **kwargs: Any) -> int:
    return trace.only(input)


def _dropout(
    trace: Trace, call: Call, input: Any, p: float = 0.5, training: bool = True, inplace: Any = 0
) -> int:
    if training:
        raise Unbounded("its dropout flips coins in evaluation mode")
    return trace.only(input)


def _sum(trace: Trace, call: Call, input: Any, other: Any, alpha: float = 1) -> int:
    """`input` + `alpha` x `other`, either of which may be a constant."""
    first, second = trace.place(input), trace.place(other)
    if first is None or second is None:
        value, place = (input, second) if first is None else (other, first)
        ours = alpha if first is None else 1
        return _scaled(trace, call, place, ours, value if first is None else _times(value, alpha))
    if trace.nodes[first].shape != trace.nodes[second].shape:
        raise Unbounded("it adds values of unequal shapes")
    if alpha != 1:
        second = trace.add(_scale(call, alpha, 0), call.shape, second)
    return trace.add(Sum(), call.shape, first, second)


def _difference(trace: Trace, call: Call, input: Any, other: Any, alpha: float = 1) -> int:
    return _sum(trace, call, input, other, -alpha)


def _reversed_difference(trace: Trace, call: Call, input: Any, other: Any) -> int:
    return _sum(trace, call, other, input, -1)


def _negative(trace: Trace, call: Call, input: Any) -> int:
    return _scaled(trace, call, trace.only(input), -1, 0)


def _product(trace: Trace, call: Call, input: Any, other: Any) -> int:
    value, x = (input, other) if trace.place(input) is None else (other, input)
    return _scaled(trace, call, trace.only(x, value), value, 0)


def _quotient(trace: Trace, call: Call, input: Any, other: Any) -> int:
    place = trace.only(input, other)
    return _scaled(trace, call, place, 1 / other, 0)


def _times(value: Any, alpha: float) -> Any:
    return value if alpha == 1 else value * alpha


def _scaled(trace: Trace, call: Call, place: int | None, factor: Any, shift: Any) -> int:
    assert place is not None
    if trace.nodes[place].shape != call.shape:
        raise Unbounded("a constant changes the shape of its values")
    return trace.add(_scale(call, factor, shift), call.shape, place)


def _scale(call: Call, factor: Any, shift: Any) -> Scale:
    """A `Scale` by constants, which are numbers or tensors that broadcast to [B, *shape]."""

    def one(value: Any) -> Tensor:
        made = value if isinstance(value, Tensor) else call.made.new_tensor(float(value))
        if made.dim() > len(call.shape):
            if len(made) != 1:
                raise Unbounded("a constant differs between examples")
            made = made[0]
        return made.to(call.made)

    return Scale(one(factor), one(shift))


READERS: dict[str, Callable[..., int]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "relu": _relu,
    "clamp": _clamp,
    "neg": _negative,
    "rsub": _reversed_difference,
    "div": _quotient,
    "truediv": _quotient,
    **dict.fromkeys(("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten"), _reshape),
    **dict.fromkeys(("contiguous", "to", "float", "clone", "detach"), _same),
    **dict.fromkeys(("dropout", "dropout2d"), _dropout),
    **dict.fromkeys(("add", "radd", "iadd"), _sum),
    **dict.fromkeys(("sub", "isub"), _difference),
    **dict.fromkeys(("mul", "rmul", "imul"), _product),
}
