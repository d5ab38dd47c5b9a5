"""Random numbers keyed by example: a pure function of a key, not of a stream.

A stream of random numbers ties every example to its neighbours: split the batch elsewhere, or let
an example leave it early, and everybody's noise changes. Here each example owns a 64-bit key, and
its numbers depend on that key and the step alone. The generator is the finaliser of SplitMix64
(Steele, Lea & Flood, OOPSLA 2014), a bijection with full avalanche, applied to a counter.

All arithmetic is on int64 tensors, which wrap around: the bits agree on every device.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def _signed(unsigned: int) -> int:
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    return z ^ _shifted(z, 31)


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything with a stable `repr`, such as (seed, round, player).

    Equal parts give equal seeds, on every machine and in every process.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@cache
def secret(seed: int) -> bytes:
    """The secret of a match, from its seed: what all its coins and seeds are derived from.

    Players are handed seeds derived from the secret by `seed_of`, a one-way function. A seed is
    often a small number, which could be found by trying; scrypt (RFC 7914, 16 MiB) makes each try
    cost tens of milliseconds. Whoever must not find the seed should not be told it: a large random
    seed cannot be found at all.
    """
    return hashlib.scrypt(repr(seed).encode(), salt=b"arena match", n=1 << 14, r=8, p=1, dklen=32)


def keys(seed: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """A key for each of `n` examples, int64 [n]."""
    return keys_of(seed, torch.arange(n, device=device))


def keys_of(seed: int, examples: Tensor) -> Tensor:
    """The keys of some examples, by their numbers, int64 [b]."""
    return fold(torch.full_like(examples, seed), examples)


def of(x: Tensor) -> Tensor:
    """A key for each input of `x` [B, ...], int64 [B], from its bits as float32.

    Equal inputs have equal keys, whatever else is in the batch; so have 0 and -0.
    """
    bits = (x.flatten(1).float() + 0.0).view(torch.int32).long()
    place = torch.arange(1, bits.shape[1] + 1, device=x.device) * _GOLDEN
    return _mix(_mix(bits + place).sum(1))


def fold(key: Tensor, step: int | Tensor) -> Tensor:
    """New keys [B] from keys [B] and a step (a number, or one per key)."""
    if isinstance(step, Tensor):
        return _mix(_mix(key + _GOLDEN) + (step + 1) * _GOLDEN)
    return _mix(_mix(key + _GOLDEN) + _signed((step + 1) * _GOLDEN % (1 << 64)))


def uniform(key: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Uniform numbers in [0, 1), float32 [B, *shape], on the 2^-24 grid."""
    size = math.prod(shape)
    counter = torch.arange(1, size + 1, device=key.device) * _GOLDEN
    bits = _shifted(_mix(key[:, None] + counter), 40)
    return (bits.to(torch.float32) * 2.0**-24).reshape(len(key), *shape)


def integers(key: Tensor, high: int | Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Whole numbers in 0 .. high - 1, int64 [B, *shape]; `high` < 2^24, a number or one per key."""
    if isinstance(high, Tensor):
        high = high.reshape(-1, *(1,) * len(shape))
    return (uniform(key, shape).to(torch.float64) * high).long()


def normal(key: Tensor, shape: Sequence[int] = ()) -> Tensor:
    """Standard normal numbers, float32 [B, *shape] (Box-Muller)."""
    radius = torch.sqrt(-2.0 * torch.log1p(-uniform(fold(key, 0), shape)))
    return radius * torch.cos(2.0 * math.pi * uniform(fold(key, 1), shape))
