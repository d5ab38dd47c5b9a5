"""What a strategy may not change: every way in which it might is noticed."""

import copy
import functools
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from linear import linear_model
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from small import LINEAR, attacker, defender, evasion, last
from torch import nn

from arena import IllegalMove, Strategy, WhiteBox
from arena.defenses.erm import ERM
from arena.seal import Seal, TorchState


def in_tensor(model):
    next(model.parameters()).data.view(-1)[0] += 1e-3


def by_numpy(model):
    next(model.parameters()).detach().numpy().reshape(-1)[0] += 1e-3


def whole(model):
    first = next(model.parameters())
    first.data = first.data.double()


def mode(model):
    model.train()


def mode_of_a_part(model):
    list(model.modules())[-1].train()


def hook(model):
    model.register_forward_hook(lambda module, given, output: output * 0)


def hook_before(model):
    list(model.modules())[-1].register_forward_pre_hook(lambda module, given: None)


def forward(model):
    model.forward = lambda x: torch.zeros(len(x), 10)


def learning(model):
    next(model.parameters()).requires_grad_(True)


def another_part(model):
    name, part = list(model.named_children())[-1]
    setattr(model, name, copy.deepcopy(part).double())


CHANGES = [
    in_tensor,
    by_numpy,
    whole,
    mode,
    mode_of_a_part,
    hook,
    hook_before,
    forward,
    learning,
    another_part,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_of_a_module_is_noticed(change):
    model = nn.Sequential(nn.Flatten(), linear_model(4)).eval().requires_grad_(False)
    seal = Seal()
    seal.close({"model": model, "other": torch.zeros(3)})
    assert seal.broken() == []
    model(torch.ones(2, 4))
    assert seal.broken() == []
    change(model)
    assert seal.broken() == ["model"]


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), DecisionTreeClassifier(), KNeighborsClassifier()], ids=type
)
def test_estimators_are_sealed_by_their_arrays(estimator):
    x, y = np.random.default_rng(0).random((30, 4)), np.arange(30) % 3
    estimator.fit(x, y)
    seal = Seal()
    seal.close({"model": estimator.predict})
    estimator.predict(x)
    assert seal.broken() == []
    estimator.fit(x, (y + 1) % 3)
    assert seal.broken() == ["model"]


class Remembers(nn.Module):
    """Caches what it needs, keeps its last pass, counts its calls, and has a temperature."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.cache, self.last, self.calls, self.temperature = None, None, 0, 1.0

    def forward(self, x):
        self.cache = torch.arange(4) if self.cache is None else self.cache
        self.calls += 1
        self.last = self.norm(x) / self.temperature
        return self.last


def test_a_model_may_remember_things_but_not_change_its_settings():
    model, seal = Remembers().eval().requires_grad_(False), Seal()
    seal.close({"model": model})
    for value in (0.0, 1.0):
        model(torch.full((2, 4), value))
        assert seal.broken() == []
    model.temperature = -1.0
    assert seal.broken() == ["model"]
    model.temperature = 1.0
    assert seal.broken() == []
    model.norm.eps = 1e12
    assert seal.broken() == ["model"]


def test_a_board_may_cache_and_odd_tensors_may_be_held():
    @dataclass
    class Held:
        cache: dict
        sparse: torch.Tensor
        unset: int = field(init=False)

    lazy = nn.LazyLinear(3)
    held, seal = Held({}, torch.eye(3).to_sparse()), Seal()
    seal.close({"board": held, "lazy": lazy})
    held.cache["model"] = torch.ones(3)
    assert seal.broken() == []
    held.sparse = (2 * torch.eye(3)).to_sparse()
    assert seal.broken() == ["board"]


def test_what_functions_hold_is_sealed_and_calls_may_be_counted():
    weights, calls = torch.ones(4), []

    def model(x, scale):
        calls.append(len(x))
        return x @ weights

    bound = functools.partial(model, scale=np.ones(2))
    seal = Seal()
    seal.close({"model": bound})
    bound(torch.ones(3, 4))
    assert seal.broken() == [] and calls
    weights.numpy()[0] = 2.0
    assert seal.broken() == ["model"]


def test_a_sealed_object_is_read_again_only_to_compare():
    class Counted(np.ndarray):
        pass

    values = {"a": np.zeros(3), "b": torch.zeros(0), "c": [torch.tensor(1.0)]}
    seal = Seal()
    seal.close(values)
    values["a"][0] = 1.0
    seal.close(values)  # the same object keeps its first seal
    assert seal.broken() == ["a"]
    seal.close({**values, "a": values["a"].copy()})
    assert seal.broken() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: torch.set_grad_enabled(False), "gradient mode"),
        (lambda: torch.set_default_dtype(torch.float64), "default dtype"),
        (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms"),
        (lambda: torch.set_num_threads(2), "number of threads"),
        (lambda: torch.set_float32_matmul_precision("medium"), "matmul precision"),
        (lambda: torch.manual_seed(3), "random state"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_global_settings_are_restored_and_named(change, named):
    before = TorchState.now()
    change()
    assert before.restore() == [named]
    assert before.restore() == []


# In a match -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tampers(Strategy):
    """Changes something that it is shown, and sends its inputs as they are."""

    what: str
    needs: ClassVar = {"defender": WhiteBox}

    def respond(self, turn):
        x = turn.data.x.clone()
        view = turn.see("defender", WhiteBox)
        if self.what == "inputs":
            turn.data.x.numpy()[0] = 0.5
        elif self.what == "labels":
            turn.data.y.data[0] = 3
        elif self.what == "training data":
            view.training_data.x.data.mul_(0.5)
        elif self.what == "settings":
            torch.set_grad_enabled(False)
            torch.rand(1)
        else:
            CHANGES[[each.__name__ for each in CHANGES].index(self.what)](view.module)
        return x


@pytest.mark.parametrize(
    ("what", "named"),
    [
        *((what, "the game's data") for what in ("inputs", "labels", "training data")),
        *((change.__name__, "the defender's move") for change in CHANGES if change is not whole),
    ],
)
def test_nothing_that_was_shown_can_be_changed(what, named):
    arena = evasion(attacker(Tampers(what)), defender(ERM(LINEAR, epochs=1)))
    with pytest.raises(IllegalMove, match=rf"attacker's Tampers changed .*{named}.* in place"):
        last(arena)


def test_settings_left_behind_are_restored_and_reported():
    arena = evasion(attacker(Tampers("settings")), defender(ERM(LINEAR, epochs=1)))
    with torch.enable_grad():
        record = last(arena)
        assert torch.is_grad_enabled()
    assert "left torch's gradient mode, random state changed; restored" in record.notes[0]
