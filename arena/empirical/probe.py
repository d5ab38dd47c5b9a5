"""What a probe tells of the defender's draw: a channel K [D, S], the chance of each signal.

A share: the model itself is shown so often, else a blank. A number of queries: the attacker asks
for the labels of inputs drawn at random, and models that answer all of them alike are one signal.
Which inputs were drawn is known to the attacker and not to the defender when it mixes; so it is
part of the signal, and one channel holds many draws. The inputs of fewer queries are among those of
more: what fewer show is a garbling of what more do, and V_K falls with the queries without noise.
"""

import numpy as np
from numpy.typing import ArrayLike

from arena.empirical.game import EmpiricalGame
from arena.empirical.protocol import Protocol
from arena.solvers.informed import glimpse
from arena.solvers.payoffs import Array

DRAWS = 50
"""Choices of the queried inputs that a channel averages over."""


def channel(protocol: Protocol, game: EmpiricalGame, seed: int = 0) -> Array | None:
    """The channel [D, S] of a protocol; None if it has no probe.

    Args:
        protocol: The declarations.
        game: Whose models are probed.
        seed: Of the choice of inputs.

    Raises:
        ValueError: If queries are asked of a model whose answers are not known, or more than there
            are inputs.
    """
    if protocol.share is not None:
        return glimpse(len(game.models), protocol.share)
    if protocol.queries is None:
        return None
    if unknown := [model for model in game.models if model not in game.answers]:
        raise ValueError(
            f"protocol {protocol}: the answers of {', '.join(unknown)} are not known; give the "
            "game `answers` of every model, or leave out those that were not asked"
        )
    answers = np.stack([game.answers[model] for model in game.models])
    return queried(answers, protocol.queries, seed)


def queried(answers: ArrayLike, queries: int, seed: int = 0, draws: int = DRAWS) -> Array:
    """The channel [D, S] that shows the labels of `queries` inputs, drawn without replacement.

    Args:
        answers: Labels [D, P].
        queries: 0 to P.
        seed: Of the draws.
        draws: How many choices of the inputs stand for all.

    Raises:
        ValueError: If the answers are no matrix, or there are fewer inputs than queries.
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
    # Equal columns of different draws ask for the same reply: one signal is enough.
    signals, counts = np.unique(np.hstack(columns), axis=1, return_counts=True)
    weighted: Array = signals * counts / draws
    return weighted
