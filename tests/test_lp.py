"""Lp balls cut by a box: projections against independent solvers, samplers against their laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.stats import chi2, kstest

from arena import chance
from arena.actions.lp import L0, L1, L2, Linf, Lp

KINDS = [Linf, L2, L1, L0]
CONVEX = [Linf, L2, L1]
ORD = {Linf: math.inf, L2: 2.0, L1: 1.0, L0: 0.0}
BOXES = [(0.0, 1.0), (-1.5, 2.0), (0.1, 0.8)]  # as a float32, 0.8 is above 0.8

thorough = settings(max_examples=150, deadline=None, derandomize=True)


def floats(low, high):
    low, high = (float(np.float32(end)) for end in (low, high))
    return st.floats(low, high, width=32)


@st.composite
def cases(draw, kinds=KINDS, far=True, most=6):
    """A space, a given point inside its box (often on its corners), and any output."""
    kind = draw(st.sampled_from(kinds))
    box = draw(st.sampled_from(BOXES))
    n = draw(st.integers(1, most))
    low, high = torch.tensor(box).tolist()
    corner = st.sampled_from([low, high, (low + high) / 2])
    start = draw(st.lists(corner | floats(low, high), min_size=n, max_size=n))
    outputs = st.sampled_from([low, high, 0.5, 3.0, -3.0]) | floats(-4, 4)
    if far:
        outputs |= st.sampled_from([1e30, -1e30, 3e38, 1e-30, -1e6])
    end = draw(st.lists(outputs, min_size=n, max_size=n))
    lengths = st.sampled_from([0.0, 0.03, 1.0]) | floats(0, 6)
    radii = st.integers(0, n + 1) if kind is L0 else lengths
    space = kind(draw(radii), box=box)
    return space, torch.tensor([start]).clamp(low, high), torch.tensor([end])


def batch(b=64, shape=(5,), seed=0, spread=1.0, box=(0.0, 1.0)):
    """Given points in the box, two thirds of their values on its sides, and outputs around."""
    g = torch.Generator().manual_seed(seed)
    low, high = box
    x = (torch.rand(b, *shape, generator=g) * 3 - 1).clamp(0, 1) * (high - low) + low
    return x.clamp(low, high), x + spread * torch.randn(b, *shape, generator=g)


def keys(b, seed=0):
    return chance.keys(seed, b)


# Projection ------------------------------------------------------------------------------------


@thorough
@given(cases())
def test_projection_is_legal_and_idempotent(case):
    space, x, output = case
    z = space.project(x, output)
    assert z.dtype == torch.float32 and z.shape == x.shape
    assert space.contains(x, z).all(), space.explain(x, z)
    assert torch.equal(space.project(x, z), z)
    # Stronger than `contains`: rounding does not use up the tolerance.
    change = (z.double() - x.double()).flatten().numpy()
    size = np.linalg.norm(change, ORD[type(space)])
    assert size <= space.eps * (1 + 1e-13) or space.contains(x, output).all()


@given(cases())
def test_a_projection_around_the_same_inputs_is_the_projection(case):
    space, x, output = case
    project = space.projection(x)
    assert torch.equal(project(output), space.project(x, output))
    assert torch.equal(project(output + 1), space.project(x, output + 1))


@thorough
@given(cases(far=False), st.integers(0, 2**31))
def test_legal_outputs_stay_to_the_bit(case, seed):
    space, x, _ = case
    output = space.sample(x, keys(1, seed))
    if isinstance(space, Linf):  # whose ends are a float32 step nearer
        step = output.nextafter(x) - output
        assert ((space.project(x, output) - output).abs() <= step.abs()).all()
    else:
        assert torch.equal(space.project(x, output), output)


def test_outputs_within_the_tolerance_stay_to_the_bit():
    x, output = torch.zeros(1, 3), torch.zeros(1, 3)
    for space in (L2(0.5), L1(0.5)):
        output[0, 0] = 0.5 * (1 + 5e-6)
        assert space.contains(x, output).all()
        assert torch.equal(space.project(x, output), output)


def nearest_by_slsqp(space, x, v):
    """Nearest point by a general solver, from two starts; float64 arrays [n]."""
    low, high = np.float32(space.box[0]).item(), np.float32(space.box[1]).item()
    n, eps = len(x), space.eps
    down, up = low - x, high - x  # bounds of the displacement
    w = v - x
    if type(space) is L1:  # displacement p - q, with p and q at least 0

        def split(pq):
            return pq[:n] - pq[n:]

        bounds = [(0, u) for u in up] + [(0, -d) for d in down]
        rule = {
            "type": "ineq",
            "fun": lambda pq: eps - pq.sum(),
            "jac": lambda pq: -np.ones(2 * n),
        }
        size = 2 * n
    else:

        def split(d):
            return d

        if type(space) is Linf:
            down, up = np.maximum(down, -eps), np.minimum(up, eps)
        bounds = list(zip(down, up, strict=True))
        rule = {"type": "ineq", "fun": lambda d: eps**2 - d @ d, "jac": lambda d: -2 * d}
        rule = rule if type(space) is L2 else ()
        size = n

    def loss(d):
        return np.sum((split(d) - w) ** 2)

    def slope(d):
        g = 2 * (split(d) - w)
        return np.concatenate([g, -g]) if type(space) is L1 else g

    best = None
    for start in (np.zeros(size), np.full(size, eps / (3 * size))):
        start = np.clip(start, *np.array(bounds).T)
        found = minimize(
            loss,
            start,
            jac=slope,
            bounds=bounds,
            constraints=rule,
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        # At this accuracy the line search may give up (status 8) on the optimum itself.
        assert found.success or found.status == 8, found.message
        if best is None or found.fun < best.fun:
            best = found
    return x + split(best.x)


# scipy 1.12's SLSQP steps over its bounds, says so, and goes on from them.
@pytest.mark.filterwarnings("ignore:Values in x were outside bounds:RuntimeWarning")
@pytest.mark.parametrize("kind", CONVEX)
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("eps", [0.2, 0.7, 1.5])
def test_projection_agrees_with_slsqp(kind, box, eps):
    space = kind(eps, box=box)
    x, output = batch(b=12, shape=(4,), seed=1, box=box)
    ours = space.project(x, output).double().numpy()
    for i in range(len(x)):
        theirs = nearest_by_slsqp(space, x[i].double().numpy(), output[i].double().numpy())
        np.testing.assert_allclose(ours[i], theirs, atol=2e-5)


@pytest.mark.parametrize("kind", [L2, L1])
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_projection_agrees_with_bisection_in_many_dimensions(kind, spread):
    """The KKT conditions, solved for the multiplier by bisection rather than by sorting."""
    eps = {L2: 1.0, L1: 10.0}[kind]
    x, output = batch(b=8, shape=(3, 10, 10), seed=2, spread=spread)
    ours = kind(eps).project(x, output).flatten(1).double().numpy()
    bound = 0
    starts, ends = x.flatten(1).double().numpy(), output.flatten(1).double().numpy()
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):

        def z(multiplier, start=start, end=end):
            w = end - start
            if kind is L2:
                d = w / (1 + multiplier)
            else:
                d = np.sign(w) * np.maximum(np.abs(w) - multiplier, 0)
            return np.clip(start + d, 0, 1)

        def excess(multiplier, start=start, z=z):
            return np.linalg.norm(z(multiplier) - start, ORD[kind]) - eps

        multiplier = 0.0
        if excess(0.0) > 0:
            multiplier = brentq(excess, 0.0, 1e6, xtol=1e-13, rtol=1e-14)
            bound += 1
        np.testing.assert_allclose(ours[i], z(multiplier), atol=3e-7)
    assert bound >= 4  # else the ball was never met


@pytest.mark.parametrize("kind", KINDS)
def test_no_legal_point_is_nearer(kind):
    eps = 2 if kind is L0 else 0.8
    space = kind(eps)
    x, output = batch(b=40, shape=(2, 3), seed=3)
    nearest = (space.project(x, output) - output).flatten(1).norm(dim=1)
    for seed in range(50):
        rival = space.sample(x, keys(len(x), seed))
        # Small steps from the answer too, scaled back into the ball: rivals close by.
        for other in (rival, space.project(x, output) * 0.98 + rival * 0.02):
            legal = space.contains(x, other)
            assert (legal | torch.tensor(kind is L0)).all()
            distance = (other - output).flatten(1).norm(dim=1)
            assert (distance[legal] >= nearest[legal] - 1e-6).all()


@thorough
@given(cases(kinds=[L0]))
def test_l0_projection_beats_every_subset(case):
    space, x, output = case
    low, high = torch.tensor(space.box).tolist()
    start, end = x[0].double().numpy(), output[0].double().numpy()
    best = math.inf
    for k in range(min(space.eps, len(start)) + 1):
        for chosen in itertools.combinations(range(len(start)), k):
            z = start.copy()
            z[list(chosen)] = end[list(chosen)].clip(low, high)
            best = min(best, np.sum((z - end) ** 2))
    found = np.sum((space.project(x, output)[0].double().numpy() - end) ** 2)
    assert found <= best * (1 + 1e-12) + 1e-12


def test_linf_projection_is_the_clip():
    x, output = batch(b=50, shape=(7,), seed=4, spread=0.3)
    z = Linf(0.1).project(x, output)
    start = x.double().numpy()
    expected = output.double().numpy().clip((start - 0.1).clip(min=0), (start + 0.1).clip(max=1))
    np.testing.assert_allclose(z.double().numpy(), expected, atol=6e-8, rtol=0)


def test_scaling_then_clipping_is_not_the_projection():
    """The trap: scaled onto the ball, the first coordinate's share is lost at the box."""
    x, output = torch.tensor([[1.0, 0.0]]), torch.tensor([[9.0, 0.8]])
    torch.testing.assert_close(L2(0.5).project(x, output), torch.tensor([[1.0, 0.5]]))
    torch.testing.assert_close(L1(0.5).project(x, output), torch.tensor([[1.0, 0.5]]))


@pytest.mark.parametrize("far", [3.0, 1e6, 1e20, 1e30, 3e38])
def test_extremely_far_outputs(far):
    x = torch.tensor([[0.5, 0.5, 1.0]])
    output = torch.tensor([[far, far, far]])
    for space, moved in ((L2(0.1), 0.1 / math.sqrt(2)), (L1(0.1), 0.05), (Linf(0.1), 0.1)):
        expected = torch.tensor([[0.5 + moved, 0.5 + moved, 1.0]])
        torch.testing.assert_close(space.project(x, output), expected, atol=1e-6, rtol=0)
    # One coordinate ends at the box far before the other starts.
    output = torch.tensor([[far * far if far < 1e10 else far, 0.7, 0.0]])
    torch.testing.assert_close(L1(0.6).project(x, output), torch.tensor([[1.0, 0.5, 0.9]]))


@pytest.mark.parametrize("far", [5.0, 1e9, 1e30])
def test_the_radius_used_up_exactly_at_the_box(far):
    x = torch.zeros(1, 4)
    output = torch.tensor([[far, 0.3, 0.0, 0.0]])
    # The second goes 0.3 / sqrt(far^2 + 0.3^2) in L2: nothing that shows in the sum of squares.
    second = 0.3 / math.sqrt(far * far + 0.09)
    expected = torch.tensor([[math.sqrt(1 - second**2), second, 0.0, 0.0]])
    torch.testing.assert_close(L2(1.0).project(x, output), expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(L1(1.0).project(x, output), torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    corner = torch.ones(1, 4)
    for space in (L2(2.0), L1(4.0)):
        torch.testing.assert_close(space.project(x, far * corner), corner)


@pytest.mark.parametrize("kind", KINDS)
def test_eps_zero_returns_the_given(kind):
    x, output = batch(seed=5)
    space = kind(0)
    assert torch.equal(space.project(x, output), x)
    assert torch.equal(space.sample(x, keys(len(x))), x)
    assert space.contains(x, x).all()
    assert not space.contains(x, x + 1e-7 * (0.5 - x).sign()).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("eps", [10**6, 1e30])
def test_huge_eps_is_the_clip_to_the_box(kind, box, eps):
    x, output = batch(seed=6, box=box)
    space = kind(10**6 if kind is L0 else eps, box=box)
    assert torch.equal(space.project(x, output), output.clamp(*box))
    assert space.contains(x, space.sample(x, keys(len(x)))).all()


@pytest.mark.parametrize("space", [Linf(0.25), L2(0.25), L1(0.25)])
def test_a_single_coordinate(space):
    x = torch.tensor([0.5, 0.5, 0.9, 0.1, 0.5])  # no trailing shape at all
    output = torch.tensor([0.6, 2.0, 2.0, -2.0, 0.0])
    expected = torch.tensor([0.6, 0.75, 1.0, 0.0, 0.25])
    torch.testing.assert_close(space.project(x, output), expected, rtol=0, atol=1.2e-7)
    assert space.size(x, output).tolist() == pytest.approx([0.1, 1.5, 1.1, 2.1, 0.5])


def test_ties():
    x, output = torch.zeros(1, 4), torch.full((1, 4), 2.0)
    quarter = torch.full((1, 4), 0.25)
    torch.testing.assert_close(L1(1.0).project(x, output), quarter)
    torch.testing.assert_close(L2(0.5).project(x, output), quarter)
    assert L0(2).project(x, output).tolist() == [[1.0, 1.0, 0.0, 0.0]]  # by index


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_output_stays_broken_and_alone(kind, bad):
    if kind is Linf and math.isinf(bad):
        pytest.skip("each value is cut on its own, infinity as well")
    space = kind(1)
    x, output = batch(b=3, seed=7)
    output[1, 2] = bad
    z = space.project(x, output)
    assert space.contains(x, z).tolist() == [True, False, True]
    assert torch.equal(z[[0, 2]], space.project(x[[0, 2]], output[[0, 2]]))
    assert space.explain(x[1:2], z[1:2]) == "not finite"


@pytest.mark.parametrize("kind", KINDS)
def test_empty_batch(kind):
    x = torch.zeros(0, 2, 3)
    space = kind(1)
    assert space.project(x, x).shape == space.sample(x, keys(0)).shape == (0, 2, 3)
    assert space.contains(x, x).shape == space.size(x, x).shape == (0,)


# Membership and size ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONVEX)
def test_contains_at_the_radius(kind):
    x = torch.full((64, 6), 0.5)
    direction = torch.randn(64, 6, generator=torch.Generator().manual_seed(8))
    direction /= torch.linalg.vector_norm(direction, ORD[kind], dim=1, keepdim=True)
    space = kind(0.3)
    assert space.contains(x, x + 0.3 * direction).all()  # plain float32 arithmetic is accepted
    assert not space.contains(x, x + 0.3 * 1.001 * direction).any()


def test_contains_l0_counts_exactly():
    x = torch.full((1, 200_000), 0.5)
    output = x.clone()
    output[0, :150_000] = x[0, 0].nextafter(torch.tensor(1.0))
    assert L0(150_000).contains(x, output).all()
    assert not L0(149_999).contains(x, output).any()


@pytest.mark.parametrize("kind", KINDS)
def test_contains_the_box_exactly(kind):
    space = kind(3, box=(0.1, 0.7))
    x = torch.tensor([[0.1, 0.7]])
    assert space.contains(x, x).all()
    assert not space.contains(x, x + torch.tensor([[0.0, 1e-7]])).any()
    assert not space.contains(x, x - torch.tensor([[1e-8, 0.0]])).any()


@pytest.mark.parametrize("kind", KINDS)
def test_contains_rejects_other_shapes(kind):
    x = torch.full((4, 2, 3), 0.5)
    for wrong in (x[:2], x.flatten(1), x[:, :, :1]):
        assert kind(1).contains(x, wrong).tolist() == [False] * 4
    assert kind(1).explain(x[:1], x[:1, :1]) == "shape (1, 1, 3) instead of (1, 2, 3)"


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_the_norm(kind):
    x, output = batch(b=20, shape=(3, 4), seed=9)
    output[:, 0] = x[:, 0]
    expected = torch.linalg.vector_norm((output - x).flatten(1), ORD[kind], dim=1)
    torch.testing.assert_close(kind(1).size(x, output), expected)


def test_explain():
    x = torch.full((1, 2), 0.5)
    assert Linf(0.03).explain(x, x + 0.041) == "displacement 0.041 in Linf, eps 0.03"
    assert L0(1).explain(x, x + 0.1) == "displacement 2 in L0, eps 1"
    found = L2(0.5).explain(x, torch.tensor([[1.2, -0.1]]))
    assert found == "value 1.2 outside the box [0, 1]"


# Samples ---------------------------------------------------------------------------------------


@thorough
@given(cases(far=False), st.integers(0, 2**31))
def test_samples_are_legal(case, seed):
    space, x, _ = case
    many = x.expand(8, -1)
    assert space.contains(many, space.sample(many, keys(8, seed))).all()


@pytest.mark.parametrize("start", [0.0, 0.02, 0.5, 0.97, 1.0])
def test_linf_samples_are_uniform_on_the_cut_interval(start):
    x = torch.full((5000, 2), start)
    z = Linf(0.1).sample(x, keys(5000)).double()
    low, high = max(start - 0.1, 0), min(start + 0.1, 1)
    for values in z.T:
        assert kstest(values.numpy(), "uniform", args=(low, high - low)).pvalue > 1e-3
    assert ((z == 0) | (z == 1)).double().mean() < 1e-3  # no atom at a side of the box
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.06  # 4 standard errors


@pytest.mark.parametrize("kind", [L2, L1])
def test_ball_samples_are_uniform_in_the_ball(kind):
    """Away from the box: the share of the ball's volume within the sample's size is uniform, and
    all directions are alike."""
    n, b = 3, 4000
    x = torch.full((b, n), 0.5)
    space = kind(0.4)
    change = (space.sample(x, keys(b)) - x).double()
    volume = (torch.linalg.vector_norm(change, ORD[kind], dim=1) / 0.4) ** n
    assert kstest(volume.numpy(), "uniform").pvalue > 1e-3
    octants = ((change > 0).long() * torch.tensor([1, 2, 4])).sum(1).bincount(minlength=8)
    statistic = ((octants - b / 8) ** 2 / (b / 8)).sum().item()
    assert statistic < chi2.ppf(0.999, 7)
    # Marginal of one coordinate of the uniform law on a 3-ball: L2 has density 3/4 (1 - t^2);
    # L1 has density 3/2 (1 - |t|)^2.
    t = (change[:, 0] / 0.4).numpy()
    law = {
        L2: lambda t: 0.5 + 0.75 * (t - t**3 / 3),
        L1: lambda t: 0.5 + np.sign(t) * 0.5 * (1 - (1 - np.abs(t)) ** 3),
    }[kind]
    assert kstest(t, law).pvalue > 1e-3


def test_l0_samples_choose_every_set_equally_often():
    b = 6000
    x = torch.full((b, 4), 0.25)
    z = L0(2).sample(x, keys(b))
    chosen = (z != x).long()
    assert (chosen.sum(1) == 2).all()
    counts = (chosen * torch.tensor([1, 2, 4, 8])).sum(1).bincount(minlength=16)
    counts = counts[counts > 0]
    assert len(counts) == 6
    assert ((counts - b / 6) ** 2 / (b / 6)).sum().item() < chi2.ppf(0.999, 5)
    assert kstest(z[z != x].numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("space", [Linf(0.3), L2(0.9), L1(1.5), L0(3)])
def test_samples_depend_on_the_key_only(space):
    x, _ = batch(b=17, shape=(2, 5), seed=10)
    key = keys(17)
    whole = space.sample(x, key)
    parts = torch.cat([space.sample(x[:1], key[:1]), space.sample(x[1:], key[1:])])
    assert torch.equal(whole, parts)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    assert torch.equal(space.sample(x[order], key[order]), whole[order])
    again = space.sample(x, keys(17, seed=1))
    assert (again != whole).flatten(1).any(1).all()


# Steepest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONVEX)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_steepest_has_unit_size_and_maximises(kind, scale):
    g = torch.Generator().manual_seed(11)
    gradient = torch.randn(30, 2, 4, generator=g)
    step = kind(0.1).steepest(gradient * scale)
    assert step.shape == gradient.shape and step.dtype == torch.float32
    size = torch.linalg.vector_norm(step.flatten(1), ORD[kind], dim=1)
    torch.testing.assert_close(size, torch.ones(30))
    gained = (step * gradient).flatten(1).sum(1)
    for _ in range(200):
        rival = torch.randn(30, 8, generator=g)
        rival /= torch.linalg.vector_norm(rival, ORD[kind], dim=1, keepdim=True)
        assert ((rival * gradient.flatten(1)).sum(1) <= gained + 1e-5).all()
    # The maximum is the dual norm.
    dual = {Linf: 1.0, L2: 2.0, L1: math.inf}[kind]
    expected = torch.linalg.vector_norm(gradient.flatten(1), dual, dim=1)
    torch.testing.assert_close(gained, expected)


def test_steepest_l0_changes_the_features_that_gain_the_most():
    gradient = torch.tensor([[0.1, -3.0, 2.0], [1e-30, 0.0, 0.0]])
    expected = [[0.0, -0.5, 0.5], [0.5, 0.0, 0.0]]
    assert L0(2).steepest(gradient).tolist() == expected
    across = 2 * L0(2, (-1.0, 1.0)).steepest(gradient)  # eps times it crosses the box
    assert across.abs().amax(1).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("kind", [L1, L0])
def test_steepest_takes_the_first_of_equals(kind):
    gradient = torch.tensor([[1.0, -2.0, 2.0]])
    assert kind(1).steepest(gradient).tolist() == [[0.0, -1.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_steepest_of_zero_is_zero(kind):
    assert torch.equal(kind(1).steepest(torch.zeros(3, 2, 2)), torch.zeros(3, 2, 2))


# Parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [-1, math.nan, "0.1"])
def test_bad_eps(kind, bad):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.eps = .* must be"):
        kind(bad)


def test_l0_eps_is_a_number_of_features():
    with pytest.raises(ValueError, match=r"L0\.eps = 1\.5 must be a whole number"):
        L0(1.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [(1.0, 0.0), (0.5, 0.5), (0.0, math.nan), (0.0, math.inf)])
def test_bad_box(kind, box):
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.box = .* must be (a )?finite"):
        kind(1, box=box)


def test_spaces_are_values():
    assert L2(0.5) == L2(0.5) != L2(0.5, box=(0.0, 2.0))
    assert len({L2(0.5), L2(0.5), Linf(0.5)}) == 2
    with pytest.raises(TypeError):
        Lp(0.5)
