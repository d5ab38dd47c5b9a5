"""What a defender may answer and what a pool may send."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from arena import chance
from arena.actions.decisions import Class, ClassOrRefusal, Confidence, Decisions
from arena.actions.pool import Pool
from arena.classification import Answers
from arena.core import Labelled
from arena.knowledge import INVALID, REFUSED

X = torch.zeros(4, 2)
SPACES = [Class, Confidence, ClassOrRefusal]


@pytest.mark.parametrize("space", SPACES)
def test_labels(space):
    labels = torch.tensor([0, 2, 3, REFUSED, INVALID, -3, 99])
    legal = space(3).contains(torch.zeros(7, 2), Answers(labels))
    assert legal.tolist() == [True, True, False, space is ClassOrRefusal, False, False, False]


@pytest.mark.parametrize("space", [Confidence, ClassOrRefusal])
def test_published_scores_are_log_probabilities(space):
    inf, nan = float("inf"), float("nan")
    for probabilities, legal in [
        ([0.5, 0.25, 0.25], True),
        ([1.0, 0.0, 0.0], True),  # log 0 is minus infinity, and a score like another
        ([0.5, 0.25, 0.24995], True),  # 1e-4 is the tolerance
        ([0.5, 0.25, 0.2498], False),
        ([0.5, 0.5, 0.5], False),
        ([nan, 0.5, 0.5], False),
        ([inf, 0.0, 0.0], False),
        ([0.0, 0.0, 0.0], False),
    ]:
        answers = Answers(torch.tensor([0]), torch.tensor([probabilities]).log())
        assert bool(space(3).contains(X[:1], answers)) == legal, probabilities


def test_scores_that_are_not_published_are_not_judged():
    answers = Answers(torch.tensor([0]), torch.tensor([[9.0, 9.0, 9.0]]))
    assert Class(3).contains(X[:1], answers).all()
    assert not Confidence(3).contains(X[:1], answers).any()


def test_each_answer_is_judged_alone():
    scores = torch.tensor([[0.5, 0.5], [0.9, 0.9], [0.2, 0.8], [0.5, 0.5]]).log()
    answers = Answers(torch.tensor([0, 1, 1, 2]), scores)
    assert Confidence(2).contains(X, answers).tolist() == [True, False, True, False]


@given(st.sampled_from(SPACES), st.integers(1, 12), st.integers(0, 1000))
def test_samples_are_legal_answers_whose_label_is_their_likeliest(space, classes, seed):
    n = 20
    actions = space(classes)
    answers = actions.sample(torch.zeros(n, 2), chance.keys(seed, n))
    assert actions.contains(torch.zeros(n, 2), answers).all()
    assert (answers.scores is None) == (space is Class)
    if answers.scores is not None:
        columns = classes + actions.refuses
        assert answers.scores.shape == (n, columns)
        likeliest = answers.scores.argmax(1)
        labels = torch.where(answers.labels == REFUSED, classes, answers.labels)
        assert torch.equal(likeliest, labels)


@pytest.mark.parametrize("space", SPACES)
def test_samples_are_uniform_over_the_answers(space):
    n = 6000
    labels = space(3).sample(torch.zeros(n, 1), chance.keys(1, n)).labels
    counts = (labels - REFUSED).bincount(minlength=4).double()
    if not space(3).refuses:
        assert counts[0] == 0
        counts = counts[1:]
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("space", SPACES)
def test_a_sample_is_a_function_of_its_own_key(space):
    keys = chance.keys(2, 8)
    whole = space(4).sample(torch.zeros(8, 1), keys)
    half = space(4).sample(torch.zeros(3, 1), keys[5:])
    assert torch.equal(half.labels, whole.labels[5:])
    if whole.scores is not None:
        assert torch.equal(half.scores, whole.scores[5:])


def test_explanations():
    def why(space, label, scores=None):
        scores = None if scores is None else torch.tensor([scores])
        return space(3).explain(X[:1], Answers(torch.tensor([label]), scores))

    assert (
        why(Class, REFUSED) == "it refuses, but its actions are classes only: use actions=refusal"
    )
    assert why(Confidence, 7).startswith("answer 7 is no class in 0..2")
    assert why(Confidence, 1, [9.0, 0.0, 0.0]).endswith("its scores do not sum to 1")
    # Where it may refuse, a refusal is not what is wrong.
    assert "refuses" not in why(ClassOrRefusal, REFUSED, [9.0, 0.0, 0.0, 0.0])


def test_there_is_at_least_one_class():
    for space in (Decisions, *SPACES):
        with pytest.raises(ValueError, match=rf"{space.__name__}\.classes = 0"):
            space(0)


# --- pools ----------------------------------------------------------------------------------

GIVEN = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
Y = torch.tensor([3, 1, 4, 0])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_any_given_input_may_stand_anywhere_with_its_own_label(picked):
    picked = torch.tensor(picked)
    pool, data = Pool(), Labelled(GIVEN, Y, 5)
    assert pool.contains(GIVEN, GIVEN[picked]).all()
    assert torch.equal(pool.truth(data, GIVEN[picked]), Y[picked])


def test_anything_else_is_illegal_by_however_little():
    output = GIVEN.clone()
    output[0, 0] = 1e-30
    output[1, 1] = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    output[2] = float("nan")
    assert Pool().contains(GIVEN, output).tolist() == [False, False, False, True]
    output[3] = -GIVEN[0]  # minus zero is another float
    assert not Pool().contains(GIVEN, output).any()
    # Coordinates of several inputs do not make one.
    assert not Pool().contains(GIVEN, torch.ones(1, 2)).any()


def test_images_are_compared_whole():
    images = chance.uniform(chance.keys(0, 5), (1, 2, 3))
    other = images.flip(0).clone()
    assert Pool().contains(images, other).all()
    other[3, 0, 1, 2] += 0.5
    assert Pool().contains(images, other).tolist() == [True, True, True, False, True]
    data = Labelled(images, torch.arange(5), 5)
    assert torch.equal(Pool().truth(data, images.flip(0)), torch.arange(5).flip(0))


def test_of_equal_inputs_with_several_labels_each_is_itself_and_elsewhere_the_first():
    x = torch.tensor([[0.5], [0.1], [0.5], [0.5]])
    data = Labelled(x, torch.tensor([7, 1, 8, 9]), 10)
    assert Pool().truth(data, x).tolist() == [7, 1, 8, 9]  # an honest attacker keeps its labels
    moved = torch.tensor([[0.5], [0.5], [0.1], [0.5]])
    assert Pool().truth(data, moved).tolist() == [7, 7, 1, 9]
    assert Pool().truth(data, x[[0, 2]]).tolist() == [7, 7]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.data())
def test_truth_is_always_a_label_that_an_equal_input_has(values, data):
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    y = torch.arange(len(values))
    picked = torch.tensor(data.draw(st.lists(st.sampled_from(range(len(values))), min_size=1)))
    found = Pool().truth(Labelled(x, y, len(values)), x[picked])
    assert torch.equal(x[found], x[picked])


def test_a_sample_of_a_pool_is_uniform_and_legal():
    n = 4000
    given_x = torch.arange(n, dtype=torch.float32)[:, None] / n
    drawn = Pool().sample(given_x, chance.keys(3, n))
    assert drawn.shape == given_x.shape
    assert Pool().contains(given_x, drawn).all()
    counts = (drawn[:, 0] * 8).long().bincount(minlength=8).double()
    assert stats.chisquare(counts).pvalue > 1e-6


def test_a_pool_says_what_it_is():
    assert "none of the inputs" in Pool().explain(GIVEN[:1], torch.ones(1, 2))
