"""Where the hidden activations of an architecture are, for defenses that act on them."""

from torch import nn

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


def hidden_activations(module: nn.Module, wanted_by: str) -> tuple[nn.Sequential, set[int]]:
    """The layers of an architecture and the places of its hidden activations among them.

    Raises:
        ValueError: If it is no `nn.Sequential`, if a layer hides an activation within it, or if
            there is none.
    """
    if not isinstance(module, nn.Sequential):
        raise ValueError(
            f"{wanted_by} acts on the activations of an nn.Sequential, not of a "
            f"{type(module).__name__}; put it around the network itself, inside of what wraps it"
        )
    layers = list(module)
    for layer in layers:
        if any(isinstance(part, ACTIVATIONS) for part in layer.modules() if part is not layer):
            raise ValueError(
                f"{wanted_by} cannot reach the activations within {type(layer).__name__}; "
                "use an architecture whose layers stand in one nn.Sequential, such as learner=cnn"
            )
    places = {place for place, layer in enumerate(layers[:-1]) if isinstance(layer, ACTIVATIONS)}
    if not places:
        raise ValueError(
            f"{wanted_by} acts on hidden activations, and this architecture has none; "
            "use one that is not linear"
        )
    return module, places
