"""Best replies to mixtures of models: closed forms on linear models."""

import pytest
import torch
from small import attacker, turn_on

from arena import Labelled
from arena.actions.lp import Linf
from arena.actions.pool import Pool
from arena.attacks.engines.averaged import averaged
from arena.attacks.engines.expectation import Expectation, expected
from arena.attacks.honest import Honest
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.training.classifiers import committed

EPS = 0.2


def linear(*weights, bias=0.0):
    """Two classes: logits 0 and w.x - w.(1/2) + bias."""
    with torch.random.fork_rng():
        layer = torch.nn.Linear(len(weights), 2)
    w = torch.tensor(weights)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(w), w]))
        layer.bias.copy_(torch.tensor([0.0, bias - float(w.sum()) / 2]))
    return committed(layer, 2)


def replied(models, weights, data, attack=None, **options):
    how = Expectation(attack or PGD(steps=10, step=0.3), **options)
    turn = turn_on(None, how.attack, data, Linf(EPS))
    x = how.respond(models, weights, turn)
    assert Linf(EPS).contains(data.x, x).all()
    return x, expected(models, weights, turn, x)[0]


def points(*rows, y=1):
    return Labelled(torch.tensor(rows), torch.full((len(rows),), y), 2)


# Class 1 on the right of one line and above another: one perturbation fools one, another both.
RIGHT, ABOVE = linear(1.0, 0.0), linear(0.0, 1.0)


def test_both_models_are_fooled_where_one_move_fools_both():
    data = points([0.6, 0.6], [0.6, 0.9], [0.9, 0.6], [0.9, 0.9])
    _, cost = replied([RIGHT, ABOVE], [0.7, 0.3], data)
    assert (-cost).tolist() == pytest.approx([1.0, 0.7, 0.3, 0.0])


@pytest.mark.parametrize("heavy", [0.6, 0.4])
def test_of_two_models_that_fail_in_different_places_the_likelier_is_fooled(heavy):
    """RIGHT errs left of 1/2, a band's far side errs right of it: no move fools both."""
    left = linear(-1.0, 0.0, bias=0.2)  # class 1 left of .7
    data = points([0.6, 0.5], [0.6, 0.3])
    x, cost = replied([RIGHT, left], [heavy, 1 - heavy], data)
    assert (-cost).tolist() == pytest.approx([max(heavy, 1 - heavy)] * 2)
    assert ((x[:, 0] < 0.5) == (heavy > 0.5)).all()


def test_averages_alone_find_nothing_where_gradients_cancel():
    """At the middle of the band the mean of equal losses is least: its gradient leads nowhere."""
    left = linear(-1.0, 0.0, bias=0.2)
    data = points([0.6, 0.5])
    still = PGD(steps=10, step=0.3, random_start=False)
    one = replied([RIGHT, left], [0.5, 0.5], data, still, averages=("logits",), alone=False)
    each = replied([RIGHT, left], [0.5, 0.5], data, still, averages=(), alone=True)
    assert one[1].item() == 0.0
    assert each[1].item() == -0.5


def test_of_one_model_it_is_the_attack_itself():
    data, attack = points([0.6, 0.6], [0.65, 0.2]), PGD(steps=5, step=0.3)
    turn = turn_on(averaged([RIGHT], [1.0], "logits", turn_of(data)), attack, data, Linf(EPS))
    x, _ = replied([RIGHT], [1.0], data, attack)
    assert torch.equal(x, attack.respond(turn))


def turn_of(data):
    return turn_on(None, PGD(), data, Linf(EPS))


def test_the_average_of_probabilities_is_what_a_drawn_model_answers():
    data = points([0.6, 0.1], [0.2, 0.9])
    view = averaged([RIGHT, ABOVE], [0.7, 0.3], "probabilities", turn_of(data))
    found = view.logits(data.x, torch.arange(2)).exp()
    by_hand = 0.7 * RIGHT.logits(data.x).softmax(1) + 0.3 * ABOVE.logits(data.x).softmax(1)
    torch.testing.assert_close(found, by_hand)


def test_the_gradient_of_mean_losses_weighs_them():
    data = points([0.6, 0.1], [0.2, 0.9])
    cost = attacker().cost
    view = averaged([RIGHT, ABOVE], [0.7, 0.3], "losses", turn_of(data))
    x = data.x.clone().requires_grad_()
    loss = cost.surrogate(view.logits(x, torch.arange(2)), data.y, 2)
    (found,) = torch.autograd.grad(loss.sum(), x)
    mean = sum(w * cost.surrogate(m.logits(x), data.y, 2) for w, m in ((0.7, RIGHT), (0.3, ABOVE)))
    (by_hand,) = torch.autograd.grad(mean.sum(), x)
    torch.testing.assert_close(found, by_hand)


def test_results_do_not_depend_on_the_batch_size():
    data = points(*torch.rand(9, 2, generator=torch.Generator().manual_seed(0)).tolist())
    how = Expectation(PGD(steps=4, step=0.3))
    moved = [
        how.respond(
            [RIGHT, ABOVE], [0.5, 0.5], turn_on(None, how.attack, data, Linf(EPS), batch_size=n)
        )
        for n in (2, 64)
    ]
    torch.testing.assert_close(*moved)


def test_what_cannot_attack_mixtures_is_refused():
    with pytest.raises(ValueError, match="on no average and on no model"):
        Expectation(PGD(), (), False)
    with pytest.raises(ValueError, match="actions=Pool"):
        Expectation(PGD()).check(attacker(actions=Pool()))
    Expectation(Square(steps=3)).check(attacker())
    Expectation(Honest()).check(attacker())
