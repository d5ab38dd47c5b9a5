"""Trained models: none trained twice, gone on with to the same bits, told apart by recipe."""

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from damage import each_flipped
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import arena.store
from arena.classification import Learner
from arena.core import Labelled
from arena.data.digits import Digits
from arena.defenses.erm import ERM
from arena.learners.networks import MLP
from arena.modules import UNKNOWN
from arena.store import Place, Store, described
from arena.training.trainer import Diverged

CPU = torch.device("cpu")


def digits(n=200):
    return Digits().load()[0][:n]


@dataclass(frozen=True)
class Dropping(Learner):
    """An architecture with coins of torch's own in training."""

    def layers(self, shape, classes):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes)
        )


@dataclass(frozen=True)
class Counted(ERM):
    """Counts its losses, and breaks off (by the power failing, say) before the one of a number."""

    calls: ClassVar[list[int]] = []
    stop: ClassVar[int] = -1

    def loss(self, module, step):
        if len(Counted.calls) == Counted.stop:
            raise KeyboardInterrupt
        Counted.calls.append(step.seed)
        return super().loss(module, step)


@pytest.fixture
def counted():
    Counted.calls.clear()
    Counted.stop = -1
    yield Counted(Dropping(), epochs=4, batch_size=50)  # 4 steps an epoch
    Counted.stop = -1


def same(a, b):
    a, b = a.state(), b.state()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def files(folder, ending):
    return sorted(path for path in folder.iterdir() if path.name.endswith(ending))


def test_nothing_is_trained_twice(tmp_path, counted):
    store = Store(tmp_path)
    first = counted.train(digits(), 3, store=store)
    assert len(Counted.calls) == 16
    again = counted.train(digits(), 3, store=store)
    assert len(Counted.calls) == 16 and same(first, again)
    assert torch.equal(first.logits(digits().x), again.logits(digits().x))
    (kept,) = files(tmp_path, ".safetensors")
    assert all(torch.equal(tensor, first.state()[k]) for k, tensor in load_file(kept).items())
    assert same(first, counted.train(digits(), 3)), "a store changes nothing"


def test_what_is_kept_says_what_it_is(tmp_path, counted):
    counted.train(digits(), 3, store=Store(tmp_path))
    with safe_open(files(tmp_path, ".safetensors")[0], "pt") as file:
        said = file.metadata()
    assert "Counted" in said["strategy"] and "epochs=4" in said["strategy"]
    assert said["seed"] == "3" and said["torch"] == torch.__version__ and said["device"] == "cpu"


@pytest.mark.parametrize(
    "change",
    [
        lambda trainer, data: (dataclasses.replace(trainer, lr=0.01), data, 3),
        lambda trainer, data: (trainer, data, 4),
        lambda trainer, data: (trainer, data[torch.arange(1, 200)], 3),
        lambda trainer, data: (trainer, dataclasses.replace(data, y=data.y.flip(0)), 3),
        lambda trainer, data: (dataclasses.replace(trainer, learner=MLP((5,))), data, 3),
    ],
    ids=["option", "seed", "examples", "labels", "architecture"],
)
def test_another_recipe_is_another_model(tmp_path, counted, change):
    store = Store(tmp_path)
    counted.train(digits(), 3, store=store)
    trainer, data, seed = change(counted, digits())
    trainer.train(data, seed, store=store)
    assert len(Counted.calls) > 16
    assert len(files(tmp_path, ".safetensors")) == 2


LOSSES = "def factor():\n    return {factor}\n"
IMPORTING = """
from dataclasses import dataclass
from arena.defenses.erm import ERM
from my_losses import factor

@dataclass(frozen=True)
class Scaled(ERM):
    def loss(self, module, step):
        return factor() * super().loss(module, step)
"""


def test_an_edited_module_that_the_strategy_imports_is_another_model(tmp_path, monkeypatch):
    store = Store(tmp_path / "models")
    (tmp_path / "my_losses.py").write_text(LOSSES.format(factor="1.0"))
    (tmp_path / "my_training.py").write_text(IMPORTING)
    monkeypatch.syspath_prepend(tmp_path)

    def trained():
        for name in ("my_losses", "my_training"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        scaled = importlib.import_module("my_training").Scaled(MLP(()), epochs=1)
        return scaled.train(digits(), 3, store=store)

    first = trained()
    assert same(trained(), first) and len(files(store.folder, ".safetensors")) == 1
    (tmp_path / "my_losses.py").write_text(LOSSES.format(factor="-1.00"))
    assert not same(trained(), first)
    assert len(files(store.folder, ".safetensors")) == 2


def test_code_that_cannot_be_told_from_other_code_is_not_kept(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(arena.store, "sources", lambda values: {"__main__": UNKNOWN})
    counted.train(digits(), 3, store=Store(tmp_path))
    assert not list(tmp_path.iterdir())


def test_other_threads_are_another_model(tmp_path, counted, monkeypatch):
    """How a sum is split among threads decides its last bits."""
    counted.train(digits(), 3, store=Store(tmp_path))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    counted.train(digits(), 3, store=Store(tmp_path))
    assert len(Counted.calls) == 32


def test_what_cannot_be_described_is_not_kept(tmp_path):
    with Store(tmp_path / "models").place({"model": object()}, CPU) as place:
        assert type(place) is Place
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("stop", [0, 5, 15])
def test_a_broken_training_goes_on_from_its_last_epoch(tmp_path, counted, stop):
    """Dropout's coins and Adam's moments too: the bits are those of an unbroken training."""
    whole = counted.train(digits(), 3)
    Counted.calls.clear()
    Counted.stop = stop
    with contextlib.suppress(KeyboardInterrupt):
        counted.train(digits(), 3, store=Store(tmp_path))
    assert len(Counted.calls) == stop and not files(tmp_path, ".safetensors")
    assert len(files(tmp_path, ".progress.pt")) == (stop >= 4)
    Counted.calls.clear()
    Counted.stop = -1
    assert same(counted.train(digits(), 3, store=Store(tmp_path)), whole)
    assert len(Counted.calls) == 16 - 4 * (stop // 4)
    assert not files(tmp_path, ".progress.pt")


def _train_and_be_killed(folder):
    torch.set_num_threads(1)  # as the tests' own: how sums are split decides their last bits
    arena.store._EVERY = 0.0  # every epoch is written: a kill gives no time to write the last
    loss = Counted.loss

    def deadly(self, module, step):
        if len(Counted.calls) == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(self, module, step)

    Counted.loss = deadly
    Counted(Dropping(), epochs=4, batch_size=50).train(digits(), 3, store=Store(folder))


def test_a_killed_training_goes_on_from_its_last_epoch(tmp_path, counted):
    process = multiprocessing.get_context("spawn").Process(
        target=_train_and_be_killed, args=(tmp_path,)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(files(tmp_path, ".progress.pt")) == 1
    resumed = counted.train(digits(), 3, store=Store(tmp_path))
    assert len(Counted.calls) == 8
    assert same(resumed, counted.train(digits(), 3))


@pytest.mark.parametrize("ending", [".safetensors", ".progress.pt"])
def test_a_damaged_file_is_named(tmp_path, counted, ending):
    if ending == ".progress.pt":
        Counted.stop = 5
    with contextlib.suppress(KeyboardInterrupt):
        counted.train(digits(), 3, store=Store(tmp_path))
    (kept,) = files(tmp_path, ending)
    Counted.stop = -1
    whole, calls = kept.read_bytes(), len(Counted.calls)
    named = rf"{kept.name} is damaged \(.+\); remove it to train again"
    for _ in each_flipped(kept, samples=150):
        with pytest.raises(ValueError, match=named):
            counted.train(digits(), 3, store=Store(tmp_path))
    for cut in (0, 40, len(whole) - 1):
        kept.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=named):
            counted.train(digits(), 3, store=Store(tmp_path))
    assert len(Counted.calls) == calls
    kept.unlink()
    counted.train(digits(), 3, store=Store(tmp_path))
    assert len(Counted.calls) == calls + 16


def test_a_folder_of_models_holds_models_alone(tmp_path, counted):
    for seed in range(3):
        counted.train(digits(), seed, store=Store(tmp_path))
    assert len(list(tmp_path.iterdir())) == len(files(tmp_path, ".safetensors")) == 3


@dataclass(frozen=True)
class Collapsing(ERM):
    """Learns, and then unlearns: from an epoch on, all that counts is class 0."""

    after: int = 100

    def loss(self, module, step):
        if step.progress * self.epochs >= self.after:
            return -module(step.batch.x)[:, 0].mean()
        return super().loss(module, step)


def test_a_collapse_is_reported_and_the_last_good_epoch_kept(tmp_path):
    trainer = Collapsing(MLP(()), epochs=12, batch_size=10, lr=0.02, after=8)  # 20 steps an epoch
    with pytest.raises(Diverged, match=r"epoch 9 of 12, step 180: right on 0.") as caught:
        trainer.train(digits(), 0, store=Store(tmp_path))
    (kept,) = files(tmp_path, ".progress.pt")
    said = "after it had learned; lower lr=0.02 or check the attack's eps; its last good epoch is"
    assert f"{said} in {kept}" in str(caught.value)
    saved = torch.load(kept, weights_only=True)
    assert saved["epochs"] == 8
    good = MLP(()).build((1, 8, 8), 10, 0)
    good.load_state_dict(saved["module"])
    assert float((good(digits().x).argmax(1) == digits().y).double().mean()) > 0.9


def test_a_training_that_never_learns_is_reported_at_its_end():
    with pytest.raises(Diverged, match=r"by epoch 6 of 6, step 120: right on .*, and never better"):
        Collapsing(MLP(()), epochs=6, batch_size=10, after=0).train(digits(), 0)


def test_a_training_of_few_steps_is_not_judged():
    Collapsing(MLP(()), epochs=4, batch_size=10, after=0).train(digits(), 0)  # 80 steps


def test_imbalanced_data_may_be_answered_with_one_class():
    """An answer that is right on 95 of 100 is no guess among two, though it is always the same."""
    x = torch.rand(200, 4, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(200) % 20 == 0).long()
    ERM(MLP(()), epochs=10, batch_size=10).train(Labelled(x, y, 2), 0)


@pytest.mark.parametrize(
    "value", [torch.ones(2000), torch.tensor([0.1234567]), np.zeros(3), object(), [1, [object()]]]
)
def test_what_a_repr_does_not_tell_apart_has_no_description(value):
    """Tensors and arrays are rounded and cut, plain objects are an address."""
    assert described(value) is None and described((1, "a", ERM(None))) is not None
