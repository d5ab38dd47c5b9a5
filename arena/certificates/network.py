"""A network read as a graph of operations that can be bounded.

The module runs once on two dummy inputs while torch reports every function that it calls
(`TorchFunctionMode`). So a network is read by what it does: by modules, functions and operators
alike, with any Python between them that does not look at a value. A function that looks at a value,
or that cannot be bounded, is refused by its name.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from arena.certificates.functions import READERS, Call
from arena.certificates.graph import Network, Trace, Unbounded
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


_AGREED = 1e-3
"""The largest difference, as a share, between the graph's answers and the module's: rounding."""

_ASKED = {"size", "dim", "ndimension", "__len__", "numel", "is_floating_point", "is_contiguous"}
"""Functions of a tensor that do not look at its values."""


def check(module: nn.Module) -> None:
    """Checks what can be seen without an input: the layers, and transformations of the input.

    Raises:
        ValueError: With the first layer that cannot be bounded, and the layers that can.
    """
    for name, part in module.named_modules():
        place = f"layer {name!r}" if name else "the network"
        if getattr(part, "random", False) is True:
            raise ValueError(
                f"{place} ({type(part).__name__}) flips coins, which no bound covers; certify the "
                "model without it"
            )
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
    """The graph of a module in evaluation mode, for inputs of the shape of `x` [B, ...].

    The graph holds the module's own parameters, so bounds are differentiable in them. Its answers
    are compared with the module's on the first two inputs.

    Raises:
        ValueError: With the layer or function that cannot be bounded, and those that can.
    """
    check(module)
    training = [part for part in module.modules() if part.training]
    module.eval()
    given = x.new_zeros(2, *x.shape[1:])
    recorder = _Recorder(given)
    try:
        with torch.random.fork_rng(devices=[]), recorder:
            made = module(given)
        network = recorder.trace.network(made)
        # Compiled and scripted code calls functions that torch does not report.
        wanted, found = module(x[:2]), network(x[:2])
        if float((found - wanted).abs().max()) > _AGREED * max(1.0, float(wanted.abs().max())):
            raise Unbounded("it does more than torch reports, as compiled or scripted code does")
        return network
    except Unbounded as error:
        raise ValueError(
            f"{type(module).__name__} cannot be bounded: {error}; these can: {KNOWN}"
        ) from None
    finally:
        for part in training:
            part.training = True


class _Recorder(TorchFunctionMode):
    """Adds to a trace every function that is called on a value that comes from the input."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.trace = Trace(given)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, and reads it if an argument comes from the input."""
        kwargs = kwargs or {}
        # Before the call, which may overwrite its arguments.
        touched = any([self.trace.holds(value) for value in _tensors((args, kwargs))])
        before = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ()
        made = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        asked = name in _ASKED or (name == "__get__" and not isinstance(made, Tensor))
        if not touched or asked:
            return made
        name = name.strip("_")
        if name not in READERS or not isinstance(made, Tensor) or not made.is_floating_point():
            raise Unbounded(f"it calls {name}")
        call = Call(name, made, before)
        self.trace.record(made, READERS[name](self.trace, call, *args, **kwargs))
        return made


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
