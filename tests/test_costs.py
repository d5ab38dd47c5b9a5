"""Costs by hand, and the laws of what stands in for them in a search."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from arena.classification import Answers, Outcome, decide
from arena.core import Cost
from arena.costs import (
    CostMatrix,
    ErrorRate,
    MovePrice,
    Negation,
    QueryPrice,
    Refusal,
    SourceTarget,
    Targeted,
)
from arena.knowledge import INVALID, REFUSED

K = 3
MATRIX = CostMatrix(((0, 2, 5), (1, 0, 3), (4, 4, -1)))
WITH_REFUSAL = CostMatrix(((0.0, 2.0, 5.0, 1.0), (1.0, 0.0, 3.0, 0.5), (4.0, 4.0, -1.0, 9.0)))
ANSWER_COSTS = [
    ErrorRate(),
    Targeted(1),
    SourceTarget(0, 2),
    MATRIX,
    WITH_REFUSAL,
    Refusal(),
    Refusal(0.25, 3.0),
]
COSTS = [
    *ANSWER_COSTS,
    *map(Negation, ANSWER_COSTS),
    QueryPrice(MATRIX, 0.5),
    MovePrice(MATRIX, 0.5),
]
NAMES = [str(cost) for cost in COSTS]


def outcome(labels, y, changed=None, queries=None):
    labels, y = torch.as_tensor(labels), torch.as_tensor(y)
    n = len(y)
    return Outcome(
        y=y,
        clean=Answers(y),
        attacked=Answers(labels),
        changed=torch.ones(n, dtype=torch.bool) if changed is None else torch.as_tensor(changed),
        queries=torch.zeros(n, dtype=torch.int64) if queries is None else torch.as_tensor(queries),
        gradients=torch.zeros(n, dtype=torch.int64),
    )


def row_costs(cost, truth, classes=K):
    """What each answer costs where the truth is `truth`: one answer at a time."""
    return [float(cost.answered(torch.tensor([k]), torch.tensor([truth]))) for k in range(classes)]


def gradient(cost, logits, y, classes=None):
    logits = logits.detach().requires_grad_()
    value = cost.surrogate(logits, y, classes)
    (found,) = torch.autograd.grad(value.sum(), logits)
    return value.detach(), found


# Every truth with every answer: rows of the truth, columns 0, 1, 2, refused.
BY_HAND = [
    (ErrorRate(), [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]]),
    (Targeted(1), [[1, 0, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]]),
    (SourceTarget(0, 2), [[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]]),
    (MATRIX, [[0, 2, 5, 5], [1, 0, 3, 3], [4, 4, -1, 4]]),  # refusing costs the row's most
    (WITH_REFUSAL, [[0, 2, 5, 1], [1, 0, 3, 0.5], [4, 4, -1, 9]]),
    (Refusal(0.5, 0.0), [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0]]),
    (Refusal(0.5, 3.0), [[0, 1, 1, 3], [1, 0, 1, 3], [1, 1, 0, 3]]),
]


@pytest.mark.parametrize(("cost", "table"), BY_HAND, ids=[str(cost) for cost, _ in BY_HAND])
def test_by_hand(cost, table):
    expected = torch.tensor(table, dtype=torch.float32).flatten()
    y = torch.arange(K).repeat_interleave(K + 1)
    labels = torch.tensor([0, 1, 2, REFUSED]).repeat(K)
    for found in (cost.answered(labels, y), cost(outcome(labels, y))):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)
    assert torch.equal(Negation(cost)(outcome(labels, y)), -expected)
    assert torch.equal(Negation(cost).answered(labels, y), -expected)


def test_a_refusal_is_priced_by_whether_the_attacker_touched_the_input():
    labels, y = [REFUSED, REFUSED, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]
    changed = [False, True, False, True, False, True]
    found = Refusal(on_clean=0.25, on_attacked=3.0)(outcome(labels, y, changed))
    assert found.tolist() == [0.25, 3.0, 0.0, 0.0, 1.0, 1.0]


def test_queries_are_paid_for_at_the_end_and_never_searched_for():
    cost = QueryPrice(of=ErrorRate(), price=0.25)
    labels, y, queries = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), [0, 2, 8]
    assert cost(outcome(labels, y, queries=queries)).tolist() == [0.0, 1.5, 2.0]
    assert torch.equal(cost.answered(labels, y), ErrorRate().answered(labels, y))
    logits = torch.tensor([[0.3, -1.0], [0.2, 0.0], [3.0, 1.0]])
    assert torch.equal(cost.surrogate(logits, y), ErrorRate().surrogate(logits, y))
    paid = Negation(cost)(outcome(labels, y, queries=queries))
    assert paid.tolist() == [0.0, -1.5, -2.0]


def test_a_move_is_paid_for_whatever_its_answer():
    cost = MovePrice(of=ErrorRate(), price=0.25)
    made = replace(outcome([0, 1, 1], [0, 0, 1]), price=torch.tensor([0.0, 2.0, 8.0]))
    assert cost(made).tolist() == [0.0, 1.5, 2.0]
    assert cost(outcome([0, 1, 1], [0, 0, 1])).tolist() == [0.0, 1.0, 0.0]  # a space without prices


answers = st.integers(REFUSED, K - 1)
rows = st.lists(
    st.tuples(answers, st.integers(0, K - 1), st.booleans(), st.integers(0, 50)), min_size=1
)


@given(rows, st.sampled_from(COSTS))
def test_zero_sum_games_sum_to_zero(rows, cost):
    labels, y, changed, queries = zip(*rows, strict=True)
    played = outcome(labels, y, changed, queries)
    assert torch.equal(cost(played) + Negation(cost)(played), torch.zeros(len(rows)))
    assert torch.equal(Negation(Negation(cost))(played), cost(played))


@given(rows, st.sampled_from(COSTS))
def test_examples_are_priced_one_by_one(rows, cost):
    labels, y, changed, queries = zip(*rows, strict=True)
    whole = cost(outcome(labels, y, changed, queries))
    for i in range(len(rows)):
        one = outcome(labels[i : i + 1], y[i : i + 1], changed[i : i + 1], queries[i : i + 1])
        assert torch.equal(whole[i : i + 1], cost(one))


# --- surrogates -----------------------------------------------------------------------------

numbers = st.floats(-30, 30, width=32)
logit_rows = st.lists(st.lists(numbers, min_size=K, max_size=K), min_size=1, max_size=5)


@given(logit_rows, st.integers(0, K - 1), st.integers(0, K - 1))
def test_of_the_error_rate_and_of_a_target_it_is_cross_entropy(logits, label, target):
    logits = torch.tensor(logits, dtype=torch.float64)
    y = torch.full((len(logits),), label)
    toward_truth = cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(ErrorRate().surrogate(logits, y), toward_truth)
    toward = cross_entropy(logits, torch.full_like(y, target), reduction="none")
    for cost in (Targeted(target), SourceTarget(label, target)):
        if label != target:
            torch.testing.assert_close(cost.surrogate(logits, y), toward)


class Unanswerable(Cost):
    """A cost that is no function of answers."""

    def __call__(self, outcome):
        return outcome.queries.float()

    def surrogate(self, logits, y, classes=None):
        return logits.square().sum(1)


def test_of_the_negation_of_what_answers_do_not_tell_it_is_minus():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    y = torch.tensor([0])
    assert Negation(Unanswerable()).surrogate(logits, y).tolist() == [-14.0]
    with pytest.raises(NotImplementedError):
        Negation(Unanswerable()).answered(y, y)


@given(logit_rows, st.sampled_from(ANSWER_COSTS))
def test_it_is_minus_the_log_of_the_expected_gain(logits, cost):
    logits = torch.tensor(logits, dtype=torch.float64)
    y = torch.arange(len(logits)) % K
    found = cost.surrogate(logits, y, K)
    for i, p in enumerate(logits.softmax(1)):
        price = torch.tensor(row_costs(cost, int(y[i])), dtype=torch.float64)
        gained = ((price.max() - price) / (price.max() - price.min()) * p).sum()
        expected = -gained.log() if price.max() > price.min() else torch.zeros(())
        assert float(found[i]) == pytest.approx(float(expected), rel=1e-6, abs=1e-9)


@given(
    st.lists(st.integers(-5, 5), min_size=K * K, max_size=K * K),
    st.lists(st.floats(0.01, 1.0), min_size=K, max_size=K),
    st.integers(0, K - 1),
    st.permutations(range(K)),
    st.floats(0.01, 0.99),
)
def test_it_falls_when_a_cheaper_answer_gets_likelier(entries, weights, truth, order, share):
    cost = CostMatrix(tuple(tuple(entries[i * K : i * K + K]) for i in range(K)))
    prices = row_costs(cost, truth)
    cheaper, dearer = order[:2]
    assume(prices[cheaper] < prices[dearer])
    before = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    after = before.clone()
    moved = share * before[dearer]
    after[dearer] -= moved
    after[cheaper] += moved
    y = torch.tensor([truth])
    assert cost.surrogate(after.log()[None], y) < cost.surrogate(before.log()[None], y)
    assert Negation(cost).surrogate(after.log()[None], y) > Negation(cost).surrogate(
        before.log()[None], y
    )


@given(logit_rows, st.floats(-100, 100, width=32), st.sampled_from(COSTS))
def test_log_probabilities_serve_as_well_as_logits(logits, shift, cost):
    logits = torch.tensor(logits, dtype=torch.float64)
    y = torch.arange(len(logits)) % K
    for same in (logits + shift, logits.log_softmax(1)):
        torch.testing.assert_close(cost.surrogate(same, y), cost.surrogate(logits, y))


@pytest.mark.parametrize("classes", [None, K])
@pytest.mark.parametrize(
    ("cost", "truth"),
    [
        (Targeted(1), 1),
        (SourceTarget(0, 2), 1),
        (SourceTarget(0, 2), 2),
        (CostMatrix(((7, 7, 7), (0, 1, 1), (1, 1, 0))), 0),
    ],
    ids=str,
)
def test_where_every_answer_costs_the_same_there_is_no_direction(cost, truth, classes):
    for scale in (0.0, 1.0, 1e4):
        for columns in (K, K + 1):
            logits = torch.arange(columns, dtype=torch.float32).mul(scale).expand(2, -1)
            y = torch.full((2,), truth)
            for signed in (cost, Negation(cost)):
                value, slope = gradient(signed, logits, y, classes)
                assert torch.equal(value, torch.zeros(2))
                assert torch.equal(slope, torch.zeros_like(logits))


@pytest.mark.parametrize("scale", [1.0, 50.0, 1e3, 1e6])
@pytest.mark.parametrize("cost", ANSWER_COSTS, ids=str)
def test_a_sure_model_leaves_a_gradient_wherever_its_answer_could_be_cheaper(cost, scale):
    for columns in (K, K + 1):
        classes = K
        for truth in range(K):
            prices = row_costs(cost, truth)
            if columns > K:
                prices.append(float(cost.answered(torch.tensor([REFUSED]), torch.tensor([truth]))))
            for sure in range(columns):
                logits = torch.zeros(1, columns)
                logits[0, sure] = scale
                value, slope = gradient(cost, logits, torch.tensor([truth]), classes)
                assert value.isfinite().all() and slope.isfinite().all()
                worst = prices[sure] == max(prices) and max(prices) > min(prices)
                if worst:
                    # All of the probability is to move: the sure answer's share falls at rate 1.
                    assert slope[0, sure] > 0.4
                    assert slope[0, prices.index(min(prices))] < 0


def test_extreme_logits_of_either_sign_stay_finite():
    for cost in COSTS:
        for logits in ([1e30, -1e30, 0.0], [-1e30] * 3, [80.0, -80.0, -80.0]):
            value, slope = gradient(cost, torch.tensor([logits]), torch.tensor([0]), K)
            assert value.isfinite().all() and slope.isfinite().all(), (cost, logits)


@pytest.mark.parametrize("scale", [50.0, 1e3])
def test_a_sure_model_leaves_a_gradient_to_the_negated_error_rate(scale):
    """Carlini & Wagner 2017 (1608.04644), section IV: "defenses" that only scale the logits."""
    logits = torch.tensor([[scale, 0.0, 0.0]])
    _, slope = gradient(Negation(ErrorRate()), logits, torch.tensor([0]))
    assert slope.abs().max() > 1e-6


@given(logit_rows, st.integers(0, K - 1))
def test_the_negations_direction_is_that_of_the_attackers_own_gain(logits, label):
    """Of S = sum_k g_k p_k and its complement R - S: grad log S and -grad log(R - S) are parallel.

    So a surrogate of the negation's own answers would walk the same way, and not underflow.
    """
    logits = torch.tensor(logits, dtype=torch.float64)
    y = torch.full((len(logits),), label)
    negated = CostMatrix(tuple(tuple(-float(i != j) for j in range(K)) for i in range(K)))
    _, one = gradient(Negation(ErrorRate()), logits, y)
    _, other = gradient(negated, logits, y)
    for a, b in zip(one, other, strict=True):
        if min(a.norm(), b.norm()) > 1e-8:
            torch.testing.assert_close(a / a.norm(), b / b.norm(), rtol=1e-5, atol=1e-5)


# --- refusal columns ------------------------------------------------------------------------

wide_rows = st.lists(st.lists(numbers, min_size=K + 1, max_size=K + 1), min_size=1, max_size=5)


@given(wide_rows, st.sampled_from(ANSWER_COSTS))
def test_with_a_refusal_column_it_is_negative_exactly_where_the_answer_is_cheapest(logits, cost):
    logits = torch.tensor(logits)
    top = logits.topk(2).values
    assume(bool((top[:, 0] > top[:, 1]).all()))
    y = torch.arange(len(logits)) % K
    found = cost.surrogate(logits, y, K)
    paid = cost.answered(decide(logits, K), y)
    for i in range(len(logits)):
        refused = cost.answered(torch.tensor([REFUSED]), y[i : i + 1])
        prices = [*row_costs(cost, int(y[i])), float(refused)]
        if min(prices) == max(prices):
            assert found[i] == 0
        else:
            assert (found[i] < 0) == (float(paid[i]) == min(prices))


def test_the_last_column_is_a_refusal_only_where_the_classes_say_so():
    # Refusing what was attacked is free: all for column 3 is the best there is, for a refusal;
    # for a fourth class it would be an error like any other.
    logits = torch.tensor([[0.0, 1.0, 2.0, 9.0]])
    y = torch.tensor([0])
    cost = Refusal(on_attacked=0.0)
    assert float(cost.surrogate(logits, y, K)) == 2.0 - 9.0
    torch.testing.assert_close(cost.surrogate(logits, y), cross_entropy(logits, y)[None])
    torch.testing.assert_close(cost.surrogate(logits, y, K + 1), cross_entropy(logits, y)[None])


def test_the_price_of_a_refusal_decides_whether_it_is_sought():
    y = torch.tensor([1])

    def slope_of_refusing(on_attacked, present):
        logits = torch.zeros(1, K + 1)
        logits[0, present] = 0.5
        return float(gradient(Refusal(on_attacked=on_attacked), logits, y, K)[1][0, K])

    wrong, right = 0, 1
    assert slope_of_refusing(0.0, wrong) < 0 and slope_of_refusing(0.5, wrong) < 0
    assert slope_of_refusing(2.0, wrong) == 0  # dearer than the error that stands
    assert slope_of_refusing(0.5, right) >= 0 and slope_of_refusing(2.0, right) >= 0


# --- relabelling ----------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.data(), st.integers(2, 5), st.booleans())
def test_relabelling_the_classes_permutes_costs(data, k, refuses):
    columns = k + refuses
    entry = st.lists(st.integers(-4, 4), min_size=columns, max_size=columns)
    matrix = torch.tensor(data.draw(st.lists(entry, min_size=k, max_size=k)), dtype=torch.float32)
    new = torch.tensor(data.draw(st.permutations(range(k))))  # class i is now called new[i]
    column = torch.cat([new, torch.tensor([k])])[:columns]
    moved = torch.empty_like(matrix)
    moved[new[:, None], column] = matrix
    n = 6
    y = torch.tensor(data.draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    labels = torch.tensor(data.draw(st.lists(st.integers(REFUSED, k - 1), min_size=n, max_size=n)))
    renamed = torch.where(labels == REFUSED, REFUSED, new[labels])
    logits = torch.tensor(
        data.draw(
            st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=n, max_size=n)
        ),
        dtype=torch.float64,
    )
    turned = torch.empty_like(logits)
    turned[:, column] = logits
    target, source = data.draw(st.permutations(range(k)))[:2]
    for old, now in [
        (
            CostMatrix(tuple(map(tuple, matrix.tolist()))),
            CostMatrix(tuple(map(tuple, moved.tolist()))),
        ),
        (ErrorRate(), ErrorRate()),
        (Refusal(0.5, 0.25), Refusal(0.5, 0.25)),
        (Targeted(target), Targeted(int(new[target]))),
        (SourceTarget(source, target), SourceTarget(int(new[source]), int(new[target]))),
    ]:
        assert torch.equal(old.answered(labels, y), now.answered(renamed, new[y]))
        torch.testing.assert_close(
            old.surrogate(logits, y, k), now.surrogate(turned, new[y], k), rtol=1e-6, atol=1e-6
        )


# --- what cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "why"),
    [
        ((), "at least 2 rows"),
        (((0.0,),), "at least 2 rows"),
        (((0, 1), (1, 0, 1)), "all of one length"),
        (((0, 1, 1, 1), (1, 0, 1, 1)), r"2 rows of 4; give rows of 2 \(answers\) or 3"),
        (((0,), (1,)), "2 rows of 1"),
        (((0, "1"), (1, 0)), "must be a number"),
        (((0, True), (1, 0)), "must be a number"),
        (3, "must be a list"),
    ],
)
def test_matrices_that_are_none(matrix, why):
    with pytest.raises(ValueError, match=rf"CostMatrix\.matrix .*{why}"):
        CostMatrix(matrix)


def test_a_matrix_may_be_written_as_lists():
    lists = CostMatrix([[0, 1], [1, 0]])
    assert lists == CostMatrix(((0, 1), (1, 0)))
    assert hash(lists) == hash(CostMatrix(((0, 1), (1, 0))))


@pytest.mark.parametrize(
    ("cost", "classes", "why"),
    [
        (Targeted(3), 3, r"target=3 is no class: the data have classes 0\.\.2"),
        (SourceTarget(3, 0), 3, "source=3 is no class"),
        (SourceTarget(0, 3), 3, "target=3 is no class"),
        (SourceTarget(1, 1), 3, "source and target are both 1"),
        (MATRIX, 4, "CostMatrix has 3 rows, but the data have 4 classes"),
        (MATRIX, 2, "CostMatrix has 3 rows, but the data have 2 classes"),
        (WITH_REFUSAL, 4, "CostMatrix has 3 rows"),
        (Negation(Targeted(9)), 3, "target=9"),
        (QueryPrice(Negation(Targeted(9))), 3, "target=9"),
        (MovePrice(Negation(Targeted(9))), 3, "target=9"),
    ],
    ids=str,
)
def test_costs_that_do_not_fit_the_classes(cost, classes, why):
    with pytest.raises(ValueError, match=why):
        cost.check(classes)


@pytest.mark.parametrize("cost", COSTS, ids=NAMES)
def test_costs_that_fit_say_nothing(cost):
    assert cost.check(K) is None


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Targeted(-1), r"Targeted\.target = -1 must be at least 0"),
        (lambda: Refusal(-0.1), r"Refusal\.on_clean = -0\.1"),
        (lambda: Refusal(0.1, -1), r"Refusal\.on_attacked = -1"),
        (lambda: QueryPrice(ErrorRate(), -1.0), r"QueryPrice\.price = -1\.0"),
        (lambda: MovePrice(ErrorRate(), -1.0), r"MovePrice\.price = -1\.0"),
        (lambda: Negation(3), r"Negation\.of = 3 must be a Cost"),
    ],
)
def test_costs_out_of_range(make, why):
    with pytest.raises(ValueError, match=why):
        make()


@pytest.mark.parametrize("cost", COSTS, ids=NAMES)
def test_an_answer_that_is_not_there_has_a_finite_price(cost):
    assert cost(outcome([INVALID, 0], [2, 2])).isfinite().all()


@pytest.mark.parametrize(
    ("cost", "price"),
    [
        (ErrorRate(), 1.0),
        (ErrorRate(no_answer=5.0), 5.0),
        (Negation(ErrorRate(no_answer=5.0)), -5.0),
        (Refusal(), 1.0),
        (Refusal(no_answer=0.25), 0.25),
        (CostMatrix(((0.0, 1.0, 7.0), (3.0, 0.0, 7.0))), 3.0),
        (CostMatrix(((0.0, 1.0), (3.0, 0.0)), no_answer=9.0), 9.0),
        (Targeted(0), 1.0),
        (SourceTarget(1, 0), 1.0),
    ],
)
def test_no_answer_costs_what_is_declared(cost, price):
    """By default as much as an error, of this true class; a targeted attacker gains nothing."""
    assert cost.answered(torch.tensor([INVALID]), torch.tensor([1])).tolist() == [price]
