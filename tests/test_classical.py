"""Classical techniques as defenders and as surrogates: what they answer, and what they can show."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from small import attacker, defender, evasion

from arena import Knowledge, Labelled, ScoreView
from arena.arena import Unplayable
from arena.attacks.pgd import PGD
from arena.attacks.square import Square
from arena.attacks.transfer import Transfer
from arena.data.digits import Digits
from arena.defenses.constant import Constant
from arena.defenses.decision_tree import DecisionTree
from arena.defenses.linear_svm import LinearSVM
from arena.defenses.nearest_neighbors import NearestNeighbors
from arena.store import Store

TECHNIQUES = [LinearSVM(), DecisionTree(), DecisionTree(depth=3, leaf=5), NearestNeighbors()]
named = pytest.mark.parametrize("technique", TECHNIQUES, ids=repr)


@pytest.fixture(scope="module")
def digits():
    whole, _ = Digits().load()
    return whole[:400], whole[400:700]


def flat(data):
    return data.x.flatten(1).numpy(), data.y.numpy()


@pytest.mark.parametrize(("depth", "leaf"), [(None, 1), (3, 5), (1, 1)])
def test_the_tree_is_scikit_learns(digits, depth, leaf):
    train, test = digits
    theirs = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, random_state=7)
    expected = theirs.fit(*flat(train)).predict_proba(flat(test)[0])
    found = DecisionTree(depth, leaf).train(train, seed=7).logits(test.x).exp()
    np.testing.assert_allclose(found.numpy(), np.maximum(expected, 1e-6), rtol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 1000])
def test_neighbors_are_scikit_learns(digits, k):
    train, test = digits
    theirs = KNeighborsClassifier(min(k, len(train))).fit(*flat(train))
    expected = theirs.predict_proba(flat(test)[0])
    found = NearestNeighbors(k).train(train, seed=0).logits(test.x).exp()
    # Two neighbors at the same distance in float32 may change places.
    assert (np.abs(found.numpy() - expected) < 1e-4).all(1).mean() > 0.99


def test_the_svm_is_scikit_learns(digits):
    train, test = digits
    theirs = LinearSVC(dual=False, random_state=7).fit(*flat(train))
    found = LinearSVM().train(train, seed=7).logits(test.x)
    np.testing.assert_allclose(found.numpy(), theirs.decision_function(flat(test)[0]), atol=1e-4)


@named
def test_two_classes_and_classes_without_examples(digits, technique):
    train, test = digits
    few = train[train.y < 2]
    two = Labelled(few.x, few.y, classes=2)
    for data in (few, two):
        model = technique.train(data, seed=0)
        kept = test[test.y < 2]
        assert model.logits(kept.x).shape == (len(kept), data.classes)
        assert (model.labels(kept.x) == kept.y).double().mean() > 0.9


@named
def test_it_is_fitted_once_and_restored_to_the_bit(digits, technique, tmp_path, monkeypatch):
    train, test = digits
    store = Store(tmp_path)
    first = technique.train(train, seed=3, store=store)
    monkeypatch.setattr(type(technique), "fit", lambda *_: pytest.fail("fitted again"))
    again = technique.train(train, seed=3, store=store)
    restored = technique.restore(first.state(), test)
    for model in (again, restored):
        assert torch.equal(model.logits(test.x), first.logits(test.x))


@named
def test_it_plays_and_shows_what_it_can(technique):
    whole = evasion(
        attacker(Square(steps=30), Knowledge.black_box("scores", 31)), defender(technique)
    )
    (record,) = whole.play(1)
    assert record.metrics["clean_error"] < 0.6
    assert record.metrics["attacked_error"] > record.metrics["clean_error"]
    white = attacker(PGD(steps=2, step=0.5))
    if technique.exposes is ScoreView:
        with pytest.raises(Unplayable, match="can show ScoreView at most"):
            evasion(white, defender(technique))
    else:
        assert next(evasion(white, defender(technique)).play(1)).metrics["attacked_error"] > 0.5


def test_what_fools_one_tree_fools_another():
    own = Transfer(DecisionTree(), attack=Square(steps=50))
    tree = defender(DecisionTree())
    (record,) = evasion(attacker(own, Knowledge()), tree, examples=200).play(1)
    assert record.metrics["attacked_error"] > record.metrics["clean_error"] + 0.1
    assert record.metrics["queries"] == 0


def test_gradients_of_what_has_none_are_refused_before_anything_trains():
    own = Transfer((LinearSVM(), NearestNeighbors()), attack=PGD(40, 0.1))
    with pytest.raises(Unplayable, match="needs a WhiteBox of its surrogate, and guess=Nearest"):
        evasion(attacker(own, Knowledge()), defender(LinearSVM()))


def test_a_constant_answers_its_class():
    honest = attacker(Square(steps=2), Knowledge.black_box("scores", 3))
    with pytest.raises(Unplayable, match="can show LabelView at most"):
        evasion(honest, defender(Constant(4)))
    (record,) = evasion(attacker(Transfer(LinearSVM()), Knowledge()), defender(Constant(4))).play(1)
    assert (record.exhibit["attacked_answer"] == 4).all()
    with pytest.raises(ValueError, match=r"Constant\.answer=10 is no class"):
        next(evasion(attacker(Transfer(LinearSVM()), Knowledge()), defender(Constant(10))).play(1))
