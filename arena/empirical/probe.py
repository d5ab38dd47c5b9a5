"""What a probe shows of the model drawn: a channel K [D, S], the probability of each signal.

With a `share`, the probe shows the model with that probability, else a blank. With a number of
`queries`, the attacker sees the labels of inputs drawn at random, and models that label all of them
alike give the same signal. The attacker knows which inputs were drawn, and the defender does not
when it mixes. So the draw is part of the signal, and one channel holds many draws. The inputs of
fewer queries are among those of more queries. So fewer queries show a garbling of what more show,
and V_K falls with the number of queries, without noise.
"""

import numpy as np
from numpy.typing import ArrayLike

from arena.empirical.game import EmpiricalGame
from arena.empirical.protocol import Protocol
from arena.solvers.informed import glimpse
from arena.solvers.payoffs import Array

DRAWS = 50
"""The number of draws of the queried inputs that a channel averages over."""


def channel(protocol: Protocol, game: EmpiricalGame, seed: int = 0) -> Array | None:
    """The channel [D, S] of a protocol; None if it has no probe.

    Args:
        protocol: The declarations.
        game: Its D models are probed.
        seed: Of the draws of inputs.

    Raises:
        ValueError: If a model's answers to queries are unknown, or if there are fewer inputs than
            queries.
    """
    if protocol.share is not None:
        return glimpse(len(game.models), protocol.share)
    if protocol.queries is None:
        return None
    if unknown := [model for model in game.models if model not in game.answers]:
        raise ValueError(
            f"protocol {protocol}: the answers of {', '.join(unknown)} are not known; give the "
            "game `answers` of every model, or leave those models out"
        )
    answers = np.stack([game.answers[model] for model in game.models])
    return queried(answers, protocol.queries, seed)


def queried(answers: ArrayLike, queries: int, seed: int = 0, draws: int = DRAWS) -> Array:
    """The channel [D, S] that shows the labels of `queries` inputs, drawn without replacement.

    Args:
        answers: Labels [D, P].
        queries: 0 to P.
        seed: Of the draws.
        draws: The number of draws of the inputs.

    Raises:
        ValueError: If the answers are not a matrix, or there are fewer inputs than queries.
    """
    labels = np.asarray(answers)
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"answers need [models, inputs], not shape {labels.shape}")
    models, inputs = labels.shape
    if not 0 <= queries <= inputs:
        raise ValueError(f"{queries} queries, but there are {inputs} inputs to ask about")
    generator = np.random.default_rng(seed)
    columns = []
    for _ in range(draws):
        chosen = generator.permutation(inputs)[:queries]
        signal = np.unique(labels[:, chosen], axis=0, return_inverse=True)[1].reshape(models)
        columns.append(np.eye(models)[signal][:, : signal.max() + 1])
    # Equal columns of different draws have the same best reply: one signal is enough.
    signals, counts = np.unique(np.hstack(columns), axis=1, return_counts=True)
    weighted: Array = signals * counts / draws
    return weighted
