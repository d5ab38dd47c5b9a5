"""The floors of tests/bench count what they say: one that is too high flatters everybody."""

import numpy as np
import pytest
import torch
from bench.cells import EXAMPLES, crossplay, filled
from bench.floors import Stretch, Until, Watched, fixed, stretches
from bench.solvers import outcomes, same, textbook
from bench.training import floor
from linear import linear_model
from small import seen

from arena import Labelled
from arena.actions.lp import Linf
from arena.empirical.crossplay import cross_play
from arena.executors.executor import Serial
from arena.solvers.zero_sum import solve
from arena.training.classifiers import ModuleClassifier


def test_all_make_every_pass_of_the_fixed_floor():
    assert fixed(3, 4, 2) == [Stretch(2, 3, 3), Stretch(2, 3, 0)]


def test_no_pass_is_lost_and_the_active_only_become_fewer():
    counts = torch.tensor([5, 1, 3, 1, 5]), torch.tensor([4, 1, 0, 0, 5])
    found = stretches(*counts)
    assert sum(part.passes * part.forwards for part in found) == counts[0].sum()
    assert sum(part.passes * part.gradients for part in found) == counts[1].sum()
    sizes = [part.forwards for part in found]
    assert sizes == sorted(sizes, reverse=True)


def test_an_examples_books_close_after_the_pass_that_breaks_it():
    # Class 1 is answered to what is below zero; nobody is of class 1.
    module = linear_model(1)
    module.weight.data, module.bias.data = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    data = Labelled(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64), 2)
    until, rows = Until(3, "cpu"), torch.arange(3)
    ball = Linf(1.5, (-1.0, 1.0))
    view = seen(Watched(ModuleClassifier(module, 2), data, ball, until), data, until)
    for x in ([1.0, -1.0, -0.5], [1.0, -0.5, -0.5], [1.0, 1.0, 1.0]):  # -1 is outside
        x = torch.tensor(x)[:, None].requires_grad_()
        torch.autograd.grad(view.logits(x, rows).sum(), x)
    assert until.queries.tolist() == until.gradients.tolist() == [3, 2, 1]
    view.on(rows[1:]).labels(torch.ones(2, 1), rows[:2])
    view.labels(torch.ones(1, 1), rows[:1])
    assert until.queries.tolist() == [4, 2, 1]


@pytest.mark.parametrize(("steps", "passes"), [(3, 1), (0, 4)])
def test_the_floor_of_a_training_makes_the_passes_it_names(steps, passes):
    seen = []

    def layout(module):
        def look(module, inputs):
            learns = all(p.requires_grad for p in module.parameters())
            seen.append((inputs[0].requires_grad, module.training, learns, len(inputs[0])))

        module.register_forward_pre_hook(look)
        return module

    data = Labelled(
        torch.rand(130, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.arange(130) % 10,
        10,
    )
    floor(data, steps, layout, passes)
    expected = [(True, False, False)] * steps + [(False, True, True)] * passes
    assert seen == [(*one, n) for n in (128, 2) for one in expected]


def test_the_bare_programs_solve_the_game_that_is_solved():
    payoffs = np.random.default_rng(0).random((6, 9))
    value = solve(payoffs).value
    assert -textbook(payoffs).fun == pytest.approx(value)
    span, low = np.ptp(payoffs), payoffs.min()
    assert span * (-1 / same(payoffs).fun - 1) + low == pytest.approx(value)
    assert set(np.unique(outcomes(np.random.default_rng(0), 3, 2, 1000))) == {0, 1}


def test_a_file_that_is_filled_leaves_nothing_to_play(tmp_path):
    play = crossplay(2, 3, (1, 8, 8))
    cells, played = filled(play, tmp_path / "cells"), []
    (game,) = cross_play([play], cells, Serial(), lambda *told: played.append(told))
    assert not played and game.costs["defender"].shape == (2, 3, EXAMPLES)
    assert set(np.unique(game.costs["defender"])) == {0, 1} and game.zero_sum
