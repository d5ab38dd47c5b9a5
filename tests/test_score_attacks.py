"""NES, SPSA, SimBA and Sparse-RS against closed forms on linear models, and the laws they share."""

import pytest
import torch
from hyperplane import ERROR, play
from test_square import Linear, inputs, linear, radius
from test_square import scored as make
from torch import Tensor

from arena import chance
from arena.actions.lp import L0, L1, L2, Linf
from arena.attacks.nes import NES
from arena.attacks.simba import SimBA, _Basis, cosines
from arena.attacks.sparse_rs import DIVISORS, SparseRS, _subset
from arena.attacks.spsa import SPSA
from arena.costs import Targeted

SHAPE = (2, 4, 4)
GAME = {
    "nes": (NES(8, 10), Linf(0.1)),
    "nes-l2": (NES(8, 10), L2(0.3)),
    "nes-l1": (NES(8, 10), L1(0.8)),
    "nes-l0": (NES(8, 10), L0(3)),
    "spsa": (SPSA(8, 10, step=0.05), Linf(0.1)),
    "spsa-l2": (SPSA(8, 10, step=0.05), L2(0.3)),
    "simba": (SimBA(100), L2(0.3)),
    "simba-dct": (SimBA(100, basis="dct"), L2(0.3)),
    "simba-linf": (SimBA(100, 1.0), Linf(0.1)),
    "sparse_rs": (SparseRS(100), L0(5)),
}
MOST = {"nes": 169, "spsa": 169, "simba": 101, "sparse_rs": 101}
ALL = pytest.mark.parametrize("name", GAME)


def sure(n: int = 9) -> tuple[Linear, Tensor, Tensor]:
    """A model that no attack in these balls can turn: every query is made."""
    model = linear(SHAPE, seed=2)
    x, y = inputs(model, SHAPE, n)
    model.b = torch.tensor([50.0, 0.0])
    return model, x, torch.zeros_like(y)


@ALL
@pytest.mark.parametrize("budget", [0, 1, 2, 3, 10, 30, None])
def test_no_query_is_asked_beyond_the_budget_or_the_promise(name, budget):
    strategy, space = GAME[name]
    model, x, y = sure()
    turn, ledger = make(strategy, model, x, y, space, budget=budget)
    output = play(turn)
    most = MOST[name.partition("-")[0]]
    allowed = most if budget is None else min(budget, most)
    # A pair and a step take three: estimates may leave up to two queries over.
    over = 2 if isinstance(strategy, NES | SPSA) and budget is not None else 0
    assert (ledger.queries <= allowed).all() and (ledger.queries >= allowed - over).all()
    if budget in (0, 1):
        assert torch.equal(output, x)


@ALL
def test_the_batch_size_and_the_company_change_nothing_and_the_seed_does(name):
    strategy, space = GAME[name]
    model = linear(SHAPE, seed=5)
    x, y = inputs(model, SHAPE, 10)
    outputs = [play(make(strategy, model, x, y, space, batch_size=b)[0]) for b in (1, 7, 64)]
    # Random searches compare scores. An estimate divides their differences by the probe, so that
    # their last bit, which SIMD tails leave to the batch, weighs 4 * 2^-23 / 0.002 of a gradient of
    # length 5 or so, times a path of at most 0.5.
    atol = 1e-4 if isinstance(strategy, NES | SPSA) else 0.0
    for other in outputs[1:]:
        torch.testing.assert_close(outputs[0], other, atol=atol, rtol=0)
    assert not torch.equal(outputs[0], play(make(strategy, model, x, y, space, seed=1)[0]))
    alone = play(make(strategy, model, x[:3], y[:3], space)[0])
    torch.testing.assert_close(alone, outputs[0][:3], atol=atol, rtol=0)


@ALL
def test_what_is_played_is_never_worse_than_the_input_and_more_queries_find_more(name):
    strategy, space = GAME[name]
    model = linear(SHAPE, seed=3)
    x, y = inputs(model, SHAPE, 30)

    def value(budget: int) -> Tensor:
        return ERROR.surrogate(
            model.logits(play(make(strategy, model, x, y, space, budget=budget)[0])), y
        )

    honest = ERROR.surrogate(model.logits(x), y)
    short, long = value(25), value(100)
    assert (short <= honest).all()
    # The search is the same up to its twenty-fifth query, but for estimates cut short by budgets.
    assert long.mean() < short.mean() < honest.mean()


@ALL
def test_at_no_radius_nothing_moves(name):
    strategy, space = GAME[name]
    model = linear(SHAPE, seed=3)
    x, y = inputs(model, SHAPE)
    turn, _ = make(strategy, model, x, y, type(space)(0))
    assert torch.equal(play(turn), x)


@ALL
def test_the_wrong_as_given_leave_at_once_and_scores_that_are_not_finite_harm_no_others(name):
    class Broken(Linear):
        def logits(self, x: Tensor) -> Tensor:
            logits = super().logits(x)
            return torch.where((x[:, 0, 0, 0] > 2)[:, None], float("nan"), logits)

    strategy, space = GAME[name]
    space = type(space)(space.eps, (0.0, 4.0))
    sound = linear(SHAPE, seed=3)
    x, y = inputs(sound, SHAPE)
    model = Broken(sound.w, sound.b)
    y[1] = 1 - y[1]
    x[0, 0, 0, 0] = 3.0  # scores are NaN wherever the attack goes
    turn, ledger = make(strategy, model, x, y, space, budget=60)
    output = play(turn)
    assert torch.equal(output[1], x[1]) and ledger.queries[1] == 1
    if not isinstance(space, L0):
        assert model.logits(output[:1]).isnan().all()
    before = ERROR.surrogate(sound.logits(x[2:]), y[2:])
    assert (ERROR.surrogate(sound.logits(output[2:]), y[2:]) < before).any()


@ALL
def test_a_target_is_what_the_cost_says(name):
    strategy, space = GAME[name]
    model = linear(SHAPE, seed=6, classes=3)
    x = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    model.b = -model.logits(x).mean(0)
    y = model.labels(x)
    goal = Targeted(target=2)
    turn, ledger = make(strategy, model, x, y, space, goal, budget=100)
    output = play(turn)
    source = y != 2
    assert torch.equal(output[~source], x[~source]) and (ledger.queries[~source] == 1).all()
    before, after = (goal.surrogate(model.logits(z), y)[source].mean() for z in (x, output))
    assert after < before


@pytest.mark.parametrize("strategy", [NES(1, 4000, step=1.0), SPSA(1, 4000, step=1.0)], ids=str)
def test_with_many_probes_one_step_is_the_gradients(strategy):
    """The closed form: eps * sign(w) in L-inf. Per entry the noise is |w| / sqrt(pairs)."""
    w = torch.tensor([[0.5] * 4 + [-0.5] * 5, [0.0] * 9])
    model = Linear(w, torch.zeros(2))
    x, y = torch.full((3, 9), 0.5), torch.zeros(3, dtype=torch.int64)
    model.b = torch.tensor([2.0, 0.0])
    output = play(make(strategy, model, x, y, Linf(0.1), batch_size=4096)[0])
    torch.testing.assert_close(output, x - 0.1 * w[:1].sign(), atol=1e-6, rtol=0)


def test_spsa_descends_the_margin_of_a_model_that_is_sure():
    """The closed form of a step: the sign of the mean of u (u . gradient) over directions u.

    Here the runner-up rises along `s` and the third answer falls four times as fast. The margin
    looks at the runner-up alone. What both share, log(1 - p), is mixed 65 to 35 by softmax and
    falls along `s`; cross-entropy is 0 in float32 everywhere near, and does not move.
    """
    s = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    model = Linear(torch.stack([0 * s, s, -4 * s]), torch.zeros(3))
    x, y = torch.full((6, 9), 0.5), torch.zeros(6, dtype=torch.int64)
    model.b = torch.tensor([50.0, 0.6, 0.0]) - model.logits(x)[0]
    assert (model.logits(x).log_softmax(1)[:, 0] == 0).all()

    model.asked.clear()
    play(make(SPSA(1, 3, step=1.0), model, x, y, Linf(0.1))[0])
    _, probes, moved = model.asked
    up, down = probes.reshape(3, 6, 2, 9).unbind(2)
    u = (up - down).sign()  # of every pair and input
    # Sums of three odd numbers: none is 0.
    estimate = (u * (u * -s).sum(2, keepdim=True)).mean(0)
    assert (estimate.sign() != -s.sign()).any(), "three pairs do not give the gradient itself"
    torch.testing.assert_close(moved, x - 0.1 * estimate.sign())


def test_simba_finds_the_closed_form_in_linf():
    """With whole steps, each entry is decided once, and for a linear model rightly."""
    model = linear((20,), seed=1)
    x, _ = inputs(model, (20,), 5)
    model.b, y = torch.tensor([50.0, 0.0]), torch.zeros(5, dtype=torch.int64)
    output = play(make(SimBA(40, 1.0), model, x, y, Linf(0.1))[0])
    best = x + 0.1 * (model.w[1] - model.w[0]).sign()
    torch.testing.assert_close(output, best, atol=1e-6, rtol=0)


def test_sparse_rs_finds_the_few_features_that_matter():
    """Weights of 1 on three of twelve features, 0.01 elsewhere: these three, at the right ends.

    The last of them is drawn with probability 1/3 * 1/9 * 1/2 a step, and missed in e^-7 of runs.
    """
    w = torch.full((2, 12), 0.01)
    w[0, :], w[1, [3, 7, 11]] = 0.0, 1.0
    model = Linear(w, torch.tensor([50.0, 0.0]))
    x, y = torch.full((4, 12), 0.5), torch.zeros(4, dtype=torch.int64)
    output = play(make(SparseRS(400), model, x, y, L0(3))[0])
    expected = x.clone()
    expected[:, [3, 7, 11]] = 1.0
    assert torch.equal(output, expected)


def test_sparse_rs_moves_what_is_at_an_end_to_the_other():
    model, x, y = sure()
    x = (x > 0.5).float()
    output = play(make(SparseRS(2), model, x, y, L0(5), budget=3)[0])
    moved = (output != x).flatten(1).sum(1)
    assert ((moved == 5) | (moved == 0)).all() and (moved == 5).any()
    turn, _ = make(SparseRS(50), model, x, y, L0(10_000))
    assert ((play(turn) != x).flatten(1).sum(1) <= 31).all()


def test_sparse_rs_replaces_as_the_paper_schedules():
    """For 10 000 steps and k = 100: alpha 0.3 over the divisors, at the published iterations."""
    ends = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000, 9999)
    found = [SparseRS(10_000).replaced(step, 100) for step in ends]
    assert found == [int(0.3 / divisor * 100) for divisor in DIVISORS]
    assert SparseRS(10_000).replaced(51, 100) == 7 and SparseRS(1000).replaced(999, 3) == 1


def test_random_subsets_have_no_repeats_and_are_uniform():
    chosen = _subset(chance.keys(0, 20_000), 6, 3)
    assert (chosen.sort(1).values.diff(dim=1) > 0).all()
    share = torch.bincount(chosen.flatten(), minlength=6) / 20_000
    # Each is in half of the subsets; five standard deviations of a share of 20 000.
    assert len(share) == 6 and (share - 0.5).abs().max() < 5 * 0.5 / 20_000**0.5


@pytest.mark.parametrize("kind", ["pixel", "dct"])
def test_the_basis_is_orthonormal_and_drawn_without_replacement(kind):
    basis = _Basis(kind, torch.zeros(1, 2, 5, 8))
    vectors = basis.at(torch.arange(80)).flatten(1)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(80), atol=1e-5, rtol=0)
    order = basis.order(chance.keys(0, 4))
    assert torch.equal(order.sort(1).values, torch.arange(80).expand(4, -1))
    assert not torch.equal(order[0], order[1])
    if kind == "dct":
        assert (order[:, :2] % 40 == 0).all()  # the constant of each channel comes first
    assert torch.allclose(cosines(5)[0], torch.full((5,), 5**-0.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("strategy", "space"), [(SimBA(), L1(1.0)), (SimBA(), L0(2)), (SparseRS(), Linf(0.1))], ids=str
)
def test_a_space_that_does_not_fit_is_refused_with_what_would(strategy, space):
    model, x, y = sure()
    with pytest.raises(ValueError, match="use actions="):
        make(strategy, model, x, y, space)


def test_errors_found_lie_where_the_ball_holds_one():
    model = linear(SHAPE, seed=4)
    x, y = inputs(model, SHAPE, 12)
    r = radius(model, x, 2)
    eps = float(r.median())
    for strategy in (NES(30, 25, step=0.3), SPSA(30, 25, step=0.02), SimBA(500)):
        lost = model.labels(play(make(strategy, model, x, y, L2(eps))[0])) != y
        assert lost[r < eps / 1.5].all() and not lost[r > eps].any() and lost.any()
