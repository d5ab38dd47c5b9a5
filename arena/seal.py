"""What a strategy may look at and must not change: compared by content, before and after a turn.

A version counter misses what is changed through a numpy view, `.data` or a hook, and says nothing
of a module's mode. So a seal hashes content: every tensor and array that can be reached, and of
every module its mode, its hooks, its type and what its parameters require.
"""

import hashlib
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, range, slice)
_CONTAINERS = {dict, list, tuple, set, OrderedDict}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Seal:
    """Remembers the content of named values, and tells which of them have changed since."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, bytes]] = {}

    def close(self, values: Mapping[str, Any]) -> None:
        """Seals values: tensors, arrays, modules, and objects that hold any of these.

        An object that was sealed under its name before is not read again.
        """
        known = self._known
        self._known = {
            name: known[name]
            if name in known and known[name][0] is value
            else (value, _digest(value))
            for name, value in values.items()
        }

    def broken(self) -> list[str]:
        """The names of sealed values whose content has changed."""
        return [name for name, (value, was) in self._known.items() if _digest(value) != was]


def _digest(value: Any) -> bytes:
    """A hash of all tensors and arrays in a value, and of the modes of all modules in it.

    Numbers and text outside tensors do not count: a model may count its own calls. What decides
    its answers is held in tensors and arrays.
    """
    digest = hashlib.sha256()
    waiting: list[tuple[str, Any]] = [("", value)]
    seen: dict[int, Any] = {}  # each object once; held, lest another takes its id
    while waiting:
        name, value = waiting.pop()
        if _hollow(value) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, Tensor):
            kind = name, tuple(value.shape), value.dtype, value.requires_grad
            digest.update(repr(kind).encode())
            digest.update(_bytes(value))
        elif isinstance(value, np.ndarray):
            digest.update(repr((name, value.shape, value.dtype)).encode())
            if value.dtype != object:
                digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        else:
            if isinstance(value, nn.Module):
                digest.update(name.encode() + _mode(value))
            waiting.extend(_parts(value))
    return digest.digest()


def _hollow(value: Any) -> bool:
    """Whether there is nothing to hash in a value: most parts of a module are empty."""
    if isinstance(value, _PLAIN):
        return True
    return type(value) in _CONTAINERS and not value


def _bytes(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def _mode(module: nn.Module) -> bytes:
    """What decides how a module passes, besides its tensors."""
    hooks = [sorted(map(id, vars(module).get(name, {}).values())) for name in _HOOKS]
    return repr((type(module), module.training, hooks, "forward" in vars(module))).encode()


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, by name."""
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((str(number), part) for number, part in enumerate(value))
    elif isinstance(value, partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from (("func", value.__func__), ("self", value.__self__))
    elif isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        yield from ((str(n), _held(cell)) for n, cell in enumerate(cells))
        yield "defaults", value.__defaults__
    elif not isinstance(value, types.ModuleType):
        yield from _state(value)


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet bound
        return None


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of an object; of one that keeps them in C, what it would pickle.

    Of a dataclass the fields: what it has cached besides follows from them.
    """
    if is_dataclass(value) and not isinstance(value, nn.Module):
        yield from ((each.name, getattr(value, each.name)) for each in fields(value))
        return
    found = getattr(value, "__dict__", None)
    if found is None:
        try:
            found = value.__getstate__()
        except Exception:  # an object that refuses to tell its state has none to compare
            return
    if isinstance(found, Mapping):
        yield from ((str(name), part) for name, part in list(found.items()))
    elif isinstance(found, tuple):
        yield from ((str(number), part) for number, part in enumerate(found))


def _reseed(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _deterministic(on: bool) -> None:
    torch.use_deterministic_algorithms(on)


def _on(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _tf32(on: bool) -> None:
    torch.backends.cudnn.allow_tf32 = on


def _benchmark(on: bool) -> None:
    torch.backends.cudnn.benchmark = on


_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, _on),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, _deterministic),
    "matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "cuDNN's TF32": (lambda: torch.backends.cudnn.allow_tf32, _tf32),
    "cuDNN's benchmark mode": (lambda: torch.backends.cudnn.benchmark, _benchmark),
    "random state": (lambda: torch.get_rng_state().numpy().tobytes(), _reseed),
}
"""What every computation in the process depends on: by name, how it is read and how it is set."""


@dataclass(frozen=True)
class TorchState:
    """torch's global settings at one moment.

    Attributes:
        values: By the names of `_SETTINGS`.
    """

    values: Mapping[str, Any]

    @classmethod
    def now(cls) -> "TorchState":
        """What they are."""
        return cls({name: read() for name, (read, _) in _SETTINGS.items()})

    def restore(self) -> list[str]:
        """Sets them as they were, and names those that were different."""
        now = TorchState.now().values
        changed = [name for name, value in self.values.items() if now[name] != value]
        for name in changed:
            _SETTINGS[name][1](self.values[name])
        return changed
