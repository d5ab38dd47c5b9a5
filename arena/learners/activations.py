"""Finds the hidden activations of an architecture, for defenses that act on them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

ACTIVATIONS = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)


def hidden_activations(module: nn.Module, wanted_by: str) -> dict[str, nn.Module]:
    """The hidden activations of an architecture, by their names in it, at any depth.

    An activation that comes last is left out: it gives the answer. Only modules are found, not
    functions that a `forward` calls.

    Args:
        module: The architecture.
        wanted_by: Who asks, for the error message.

    Raises:
        ValueError: If there is no hidden activation.
    """
    parts = module.named_modules(remove_duplicate=False)  # one activation may stand in many places
    leaves = [(name, part) for name, part in parts if not any(part.children())]
    found: dict[str, nn.Module] = {
        name: part for name, part in leaves[:-1] if isinstance(part, ACTIVATIONS)
    }
    if not found:
        raise ValueError(
            f"{wanted_by} acts on hidden activations, and this architecture has none among its "
            "modules; use one that is not linear, its activations modules such as nn.ReLU"
        )
    return found


@contextmanager
def changed(
    activations: Iterable[nn.Module], change: Callable[[Tensor, int], Tensor]
) -> Iterator[None]:
    """Replaces the outputs of activations, during one pass, by what `change` returns.

    `change` gets an output [B, ...] and its number in the pass. Outputs are numbered from 0 in the
    order in which they are computed; an activation that is used twice has two numbers.
    """
    asked = 0

    def after(_module: nn.Module, _given: tuple[Tensor, ...], activation: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return change(activation, asked - 1)

    hooks = [activation.register_forward_hook(after) for activation in set(activations)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
