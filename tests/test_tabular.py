"""Tables of numbers and parts of data: what is read, and what is said when it cannot be."""

import numpy as np
import pytest
import torch
from published import there

from arena.core import Labelled
from arena.data.given import Given
from arena.data.subset import Subset
from arena.data.tabular import Tabular

PLAIN = "0,5,-1\n1,5,1\n4,5,1\n"


def written(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return str(path)


def test_features_are_scaled_and_labels_numbered(tmp_path):
    data, test = Tabular(written(tmp_path, PLAIN)).load()
    assert test is None and data.classes == 2 and data.box == (0.0, 1.0)
    assert data.x.dtype == torch.float32 and data.y.dtype == torch.int64
    assert data.x.tolist() == [[0.0, 0.0], [0.25, 0.0], [1.0, 0.0]]  # the second never varies
    assert data.y.tolist() == [0, 1, 1]


def test_all_that_counts_may_be_presence(tmp_path):
    data, _ = Tabular(written(tmp_path, "0,0.1,0\n-2,0,1\n"), binary=True).load()
    assert data.x.tolist() == [[0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("label", ["kind", 1, -2])
def test_the_label_is_any_column_by_name_or_number(tmp_path, label):
    path = written(tmp_path, "size;kind;age\n1;7;2\n3;9;2.5\n\n2;8;4\n")
    data, _ = Tabular(path, label=label, header=True, delimiter=";").load()
    assert data.x.tolist() == [[0.0, 0.0], [1.0, 0.25], [0.5, 1.0]]
    assert data.y.tolist() == [0, 2, 1] and data.classes == 3


@pytest.mark.parametrize(
    ("text", "options", "why"),
    [
        ("1,2,0\n1,two,1\n", {}, r"row 2, column 2: 'two' is no finite number$"),
        ("1,2,0\n1,nan,1\n", {}, r"row 2, column 2: 'nan' is no finite number"),
        ("a,b,c\n1,2,0\n", {}, r"row 1, column 1: 'a' is no finite number; set header=true"),
        ("1,2,0\n1,1\n", {}, r"row 2: 2 values where 3 are wanted; is ',' the delimiter"),
        ("1;2;0\n", {}, r"row 1, column 1: '1;2;0' is no finite number"),
        ("1 2 0\n", {"delimiter": ";"}, r"row 1, column 1: '1 2 0' is no finite number"),
        ("1\n2\n", {}, r"has 1 columns, so label=-1 leaves nothing to use"),
        ("1,2\n2,3\n", {"label": 2}, r"has 2 columns, so label=2 leaves nothing"),
        ("1,0\n2,0.5\n", {}, r"label 0\.5 of example 1 is no whole number; is column -1 the"),
        ("1,3\n2,3\n", {}, r"every label is 3; a game needs at least two classes"),
        ("1e308,0\n-1e308,1\n", {}, r"feature 0 reaches from -1e\+308 to 1e\+308, too far to be"),
        ("1,2,0\n1e999,2,1\n", {}, r"row 2, column 1: '1e999' is no finite number"),
        (f"1,{'9' * 400},0\n", {}, rf"row 1, column 2: '{'9' * 40}'\.\.\. is no finite number"),
        (f"1,2,0\n1,{'9' * 200_000},0\n", {}, r"line 2: field larger than field limit \(131072\)"),
        (f'1,2,0\n1,"{"2,0" * 70_000}', {}, r"line 2: field larger .*quotation mark left open\?"),
        ("", {}, r"holds no rows of numbers"),
        ("a,b\n", {"header": True}, r"holds no rows of numbers"),
        ("a,b\n1,2\n", {"header": True, "label": "c"}, r"has no column 'c'; it has a, b"),
    ],
)
def test_an_unsound_table_is_named_with_the_place(tmp_path, text, options, why):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=why) as error:
        Tabular(path, **options).load()
    assert str(error.value).startswith(path)


def test_a_table_above_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "table.csv"
    with open(path, "wb") as file:
        file.truncate((1 << 28) + 1)  # a hole: it takes no room
    with pytest.raises(ValueError, match=rf"has {(1 << 28) + 1} bytes, at most {1 << 28} are read"):
        Tabular(str(path)).load()


def test_what_is_no_text_is_named(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe1,2")
    with pytest.raises(ValueError, match=r"table\.csv is no text"):
        Tabular(str(path)).load()


def test_a_missing_table_is_named_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no file; .*values, or leave it out"):
        Tabular(str(tmp_path / "nowhere"), openml="spambase").load()
    with pytest.raises(FileNotFoundError, match=r"nowhere is no file; .*separated values$"):
        Tabular(str(tmp_path / "nowhere")).load()
    with pytest.raises(FileNotFoundError, match="neither path nor openml"):
        Tabular().load()


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="'kind' names a column, but header=false"):
        Tabular("any", label="kind")
    with pytest.raises(ValueError, match="must be a single character"):
        Tabular("any", delimiter=", ")


def test_openml_sends_the_same_table(monkeypatch):
    asked = []

    def fetch_openml(*args, **kwargs):
        asked.append((args, kwargs))
        return np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0]]), np.array(["0", "1", "1"], object)

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    data, _ = Tabular(openml="spambase").load()
    assert data.x.tolist() == [[0.0, 0.0], [0.25, 0.0], [1.0, 0.0]] and data.y.tolist() == [0, 1, 1]
    assert asked[0][0] == ("spambase",)

    def out_of_reach(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", out_of_reach)
    with pytest.raises(FileNotFoundError, match=r"spambase .*no route to host.* set data\.path"):
        Tabular(openml="spambase").load()


def test_the_real_spambase():
    data, _ = Tabular(str(there("spambase/spambase.data"))).load()
    # Its documentation: 4,601 instances, 1,813 of them spam (39.4 %), 57 attributes.
    assert data.x.shape == (4601, 57) and data.y.bincount().tolist() == [2788, 1813]
    assert data.x.amin(0).eq(0).all() and data.x.amax(0).eq(1).all()


# --- parts of data --------------------------------------------------------------------------


def numbered(n=40, classes=4):
    y = torch.arange(n) % classes
    return Labelled(torch.arange(n)[:, None] / n, y, classes)


def test_a_subset_keeps_the_examples_of_its_classes():
    train, test = Subset(Given(numbered(), numbered(8)), classes=(3, 1)).load()
    assert train.classes == test.classes == 2 and len(train) == 20
    assert test.x.flatten().tolist() == [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    assert test.y.tolist() == [1, 0, 1, 0]  # 3 is now 0, 1 is 1


def test_a_subset_keeps_so_many_training_examples():
    given = Given(numbered(), numbered(8))
    drawn = [Subset(given, train=10, seed=seed).load()[0] for seed in (0, 0, 1)]
    assert all(len(part) == 10 == len(part.x.unique()) for part in drawn)
    assert torch.equal(drawn[0].x, drawn[1].x) and not torch.equal(drawn[0].x, drawn[2].x)
    assert len(Subset(given, train=10).load()[1]) == 8
    assert len(Subset(given, train=1000).load()[0]) == 40


def test_a_subset_that_cannot_be_had_is_refused():
    with pytest.raises(ValueError, match=r"classes = \[1\] must name two classes or more"):
        Subset(Given(numbered()), classes=(1,))
    with pytest.raises(ValueError, match=r"classes = \[1, 1\] must name two"):
        Subset(Given(numbered()), classes=(1, 1))
    with pytest.raises(ValueError, match=r"classes = \[1, 4\], but the data have 0\.\.3"):
        Subset(Given(numbered()), classes=(1, 4)).load()
    only = numbered()
    with pytest.raises(ValueError, match=r"test data of classes \[2, 3\]: no examples"):
        Subset(Given(only, only[only.y < 2]), classes=(2, 3)).load()
