"""Where data come from, and what is said when they are not sound."""

import gzip
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from damage import each_flipped
from published import MNIST_FOLDER as FOLDER

from arena.core import Labelled, first
from arena.data.digits import Digits
from arena.data.mnist import MNIST, read_idx
from arena.data.npz import Npz

mnist = [
    pytest.mark.mnist,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no folder {FOLDER}; set ARENA_MNIST"),
]


# --- soundness ------------------------------------------------------------------------------


def labelled(**changed):
    values = {"x": torch.full((4, 2, 2), 0.5), "y": torch.tensor([0, 1, 2, 1]), "classes": 3}
    return Labelled(**(values | changed))


def with_entry(example, value):
    x = torch.full((4, 2, 2), 0.5)
    x[example, 1, 0] = value
    return x


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"y": torch.tensor([0, 1])}, "4 inputs but 2 labels"),
        ({"x": torch.zeros(4)}, "inputs have shape [4] and labels [4]; give inputs [B, ...]"),
        ({"x": torch.tensor(0.5), "y": torch.tensor(0)}, "inputs have shape [] and labels []"),
        ({"x": torch.zeros(0, 2), "y": torch.zeros(0).long()}, "no examples"),
        ({"x": with_entry(2, float("nan"))}, "input 2 holds NaN or infinity"),
        ({"x": with_entry(1, float("inf"))}, "input 1 holds NaN or infinity"),
        ({"x": with_entry(3, 1.5)}, "input 3 has values in [0.5, 1.5], outside the box [0, 1]"),
        ({"x": with_entry(0, -0.25)}, "input 0 has values in [-0.25, 0.5], outside the box"),
        ({"box": (-1.0, 0.25)}, "input 0 has values in [0.5, 0.5], outside the box [-1, 0.25]"),
        ({"y": torch.tensor([0, 1, 3, 1])}, "label 3 of example 2 is outside 0..2"),
        ({"y": torch.tensor([0, -1, 0, 1])}, "label -1 of example 1 is outside 0..2"),
        ({"classes": 2}, "label 2 of example 2 is outside 0..1"),
    ],
)
def test_what_is_unsound_is_named(changed, why):
    with pytest.raises(ValueError, match="^mine: " + re.escape(why)):
        labelled(**changed).validated("mine")


def test_the_first_unsound_example_is_named():
    x = with_entry(1, 2.0)
    x[3] = 9.0
    with pytest.raises(ValueError, match="input 1 has"):
        labelled(x=x).validated("mine")


def test_what_is_sound_is_returned_as_it_is():
    data = labelled(x=torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]]), y=torch.tensor([0, 2]))
    assert data.validated("mine") is data
    assert (len(data), data.shape) == (2, (1, 2))


def test_rows_of_labelled_data():
    data = labelled(y=torch.tensor([0, 1, 2, 1]), box=(-1.0, 1.0))
    part = data[torch.tensor([2, 0])]
    assert part.y.tolist() == [2, 0] and part.classes == 3 and part.box == (-1.0, 1.0)
    assert len(data[1:]) == 3


def test_first():
    assert first(torch.tensor([False, True, True])) == 1
    assert first(torch.tensor([False, False])) is None
    assert first(torch.tensor([], dtype=torch.bool)) is None


# --- digits ---------------------------------------------------------------------------------


def test_digits():
    train, test = Digits().load()
    assert test is None
    assert train.x.shape == (1797, 1, 8, 8) and train.x.dtype == torch.float32
    assert train.y.shape == (1797,) and train.y.dtype == torch.int64 and train.classes == 10
    # Sixteenths, from blank to full.
    assert train.x.min() == 0 and train.x.max() == 1
    assert torch.equal((train.x * 16).round() / 16, train.x)
    # The original test set's class counts, from its description at UCI (optdigits.names).
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert train.y.bincount().tolist() == counts


# --- IDX files ------------------------------------------------------------------------------


def idx(array):
    array = np.asarray(array, dtype=np.uint8)
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.tobytes()


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28)])
def test_an_idx_file_is_read_as_written(tmp_path, name, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    found = read_idx(write(tmp_path / name, idx(array)), dimensions=len(shape))
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.from_numpy(array))


IMAGES = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize(
    ("content", "dimensions", "why"),
    [
        (b"", 3, "is damaged"),
        (idx(IMAGES)[:10], 3, "is damaged"),
        (idx(IMAGES)[:-1], 3, "its header promises 24 bytes, 23 are there"),
        (idx(IMAGES) + b"x", 3, "its header promises 24 bytes, more are there"),
        (idx([1, 2, 3, 4, 5, 6, 7, 8]), 3, r"no IDX file of 3 dimensions \(magic 0x801\)"),
        (idx(IMAGES), 1, r"no IDX file of 1 dimensions \(magic 0x803\)"),
        (b"\x00\x00\x0d\x03" + idx(IMAGES)[4:], 3, r"magic 0xd03"),  # floats
        # 2^31 x 2^31 x 4 = 2^64 bytes, which is 0 in 64 bits: as many as there are.
        (
            struct.pack(">4I", 0x803, 1 << 31, 1 << 31, 4),
            3,
            rf"promises {1 << 64} bytes, at most {1 << 30} are read$",
        ),
        (struct.pack(">2I", 0x801, (1 << 30) + 1), 1, rf"at most {1 << 30} are read$"),
        (struct.pack(">2I", 0x801, 1 << 30), 1, f"promises {1 << 30} bytes, 0 are there"),
    ],
    ids=[
        *("empty", "header", "short", "long", "labels", "images", "floats", "overflow"),
        *("above the limit", "at the limit"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, dimensions, why):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*{why}"):
        read_idx(path, dimensions)


def damaged_gzips():
    whole = gzip.compress(idx(np.zeros((50, 8, 8))))
    flipped = bytearray(whole)
    flipped[-6] ^= 0xFF  # in the checksum
    garbled = bytearray(whole)
    garbled[12:20] = b"\xff" * 8  # in the compressed stream
    return {"cut": whole[:-20], "checksum": bytes(flipped), "stream": bytes(garbled), "raw": b"no"}


@pytest.mark.parametrize("damage", damaged_gzips())
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    path = tmp_path / "images.gz"
    path.write_bytes(damaged_gzips()[damage])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged .*fetch it again"):
        read_idx(path, 3)


def refused_in_little_room(read, why):
    """Checks that `read` raises, with no more than 8 MiB in use at once."""
    tracemalloc.start()
    with pytest.raises(ValueError, match=why):
        read()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 23


def test_of_a_gzip_bomb_no_more_is_unpacked_than_its_header_promises(tmp_path):
    path = tmp_path / "images.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx(np.zeros((2, 3, 4))))
        for _ in range(64):
            file.write(bytes(1 << 20))
    why = "promises 24 bytes, more are there; fetch it again"
    refused_in_little_room(lambda: read_idx(path, 3), why)


FILES = {
    "train-images-idx3-ubyte": np.arange(6 * 28 * 28).reshape(6, 28, 28) % 256,
    "train-labels-idx1-ubyte": np.array([9, 0, 1, 2, 3, 4]),
    "t10k-images-idx3-ubyte": np.full((2, 28, 28), 255),
    "t10k-labels-idx1-ubyte": np.array([5, 6]),
}
SPELLINGS = [(dot, gz) for dot in (False, True) for gz in (False, True)]


def spelled(name, dot, gz):
    return (name.replace("-idx", ".idx") if dot else name) + (".gz" if gz else "")


def folder(tmp_path, dot=False, gz=False, **changed):
    for name, array in FILES.items():
        write(tmp_path / spelled(name, dot, gz), changed.get(name.split("-ubyte")[0], idx(array)))
    return tmp_path


@pytest.mark.parametrize(("dot", "gz"), SPELLINGS)
def test_a_folder_of_idx_files(tmp_path, dot, gz):
    train, test = MNIST(str(folder(tmp_path, dot, gz))).load()
    assert train.x.shape == (6, 1, 28, 28) and test.x.shape == (2, 1, 28, 28)
    pixels = torch.from_numpy(FILES["train-images-idx3-ubyte"]).float() / 255
    assert torch.equal(train.x[:, 0], pixels)
    assert train.y.tolist() == [9, 0, 1, 2, 3, 4] and test.y.tolist() == [5, 6]
    assert test.x.min() == 1.0 and train.classes == test.classes == 10


def test_a_home_folder_may_be_written_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(folder(tmp_path).parent))
    train, _ = MNIST(f"~/{tmp_path.name}").load()
    assert len(train) == 6


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    (folder(tmp_path) / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}.* is missing; put the four IDX files"):
        MNIST(str(tmp_path)).load()


def test_a_missing_folder_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match=rf"{path} is no folder; .* OpenML"):
        MNIST(str(path)).load()


def test_files_that_do_not_fit_each_other_are_named(tmp_path):
    changed = {"t10k-labels-idx1": idx([1, 2, 3])}
    with pytest.raises(ValueError, match=rf"{tmp_path} \(t10k\): 2 inputs but 3 labels"):
        MNIST(str(folder(tmp_path, **changed))).load()


def test_a_label_that_is_no_digit_is_named(tmp_path):
    changed = {"train-labels-idx1": idx([0, 1, 10, 3, 4, 5])}
    with pytest.raises(ValueError, match=r"\(train\): label 10 of example 2 is outside 0..9"):
        MNIST(str(folder(tmp_path, **changed))).load()


def test_there_are_two_data_sets():
    with pytest.raises(ValueError, match=r"MNIST\.name = 'emnist' must be one of mnist, fashion"):
        MNIST(name="emnist")


@pytest.mark.parametrize("case", [pytest.param(None, marks=mnist)])
def test_the_real_mnist(case):
    train, test = MNIST(str(FOLDER)).load()
    assert train.x.shape == (60000, 1, 28, 28) and test.x.shape == (10000, 1, 28, 28)
    assert train.x.min() == 0 and train.x.max() == 1
    # LeCun's page: 5 0 4 1 9 is how the training set begins, 7 2 1 0 4 the test set.
    assert train.y[:5].tolist() == [5, 0, 4, 1, 9] and test.y[:5].tolist() == [7, 2, 1, 0, 4]
    # Mean and deviation of the training pixels, the 0.1307 and 0.3081 of every tutorial.
    assert float(train.x.mean()) == pytest.approx(0.1307, abs=5e-5)
    assert float(train.x.double().std()) == pytest.approx(0.3081, abs=5e-5)


# --- OpenML ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "remote"), [("mnist", "mnist_784"), ("fashion_mnist", "Fashion-MNIST")]
)
def test_openml_is_split_at_the_last_ten_thousand(monkeypatch, name, remote):
    n = 10_003
    pixels = np.zeros((n, 784))
    pixels[:, 0] = np.arange(n) % 256
    asked = []

    def fetch_openml(*args, **kwargs):
        asked.append((args, kwargs))
        return pixels, np.array([str(i % 10) for i in range(n)], dtype=object)  # as it is there

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    train, test = MNIST(name=name).load()
    (((said,), options),) = asked
    assert said == remote and options["return_X_y"] and not options["as_frame"]
    assert (len(train), len(test)) == (3, 10_000)
    assert train.x.shape == (3, 1, 28, 28)
    assert train.y.tolist() == [0, 1, 2] and test.y[:2].tolist() == [3, 4]
    assert torch.equal(train.x[:, 0, 0, 0], torch.tensor([0.0, 1.0, 2.0]) / 255)
    assert float(test.x[0, 0, 0, 0]) == pytest.approx(3 / 255)


def test_openml_out_of_reach_says_what_to_do(monkeypatch):
    def fetch_openml(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    with pytest.raises(FileNotFoundError, match=r"mnist .*no route to host.* set data\.path"):
        MNIST().load()


def test_given_tensors_are_checked_when_they_are_dealt():
    from arena.data.given import Given

    sound = Labelled(torch.rand(4, 2, generator=torch.Generator()), torch.tensor([0, 1, 0, 1]), 2)
    assert Given(sound).load() == (sound, None)
    broken = Labelled(sound.x + 2.0, sound.y, 2)
    with pytest.raises(ValueError, match="test data: input 0 has values"):
        Given(sound, broken).load()
    with pytest.raises(ValueError, match="training data: no examples"):
        Given(sound[:0]).load()
    with pytest.raises(ValueError, match="must be a Labelled"):
        Given(sound.x)


# --- NumPy's files --------------------------------------------------------------------------


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_bytes_of_images_are_scaled_and_their_channels_put_first(tmp_path):
    x = np.zeros((2, 4, 5, 3), np.uint8)
    x[1, 2, 3, 0] = 255
    name = saved(tmp_path / "a.npz", x=x, y=np.array([0, 1], np.uint8))
    train, test = Npz(name, name, classes=2).load()
    assert train.x.shape == (2, 3, 4, 5) and train.y.dtype == torch.int64
    assert train.x.sum() == 1.0 and train.x[1, 0, 2, 3] == 1.0
    assert torch.equal(train.x, test.x) and Npz(name, classes=2).load()[1] is None


def test_inputs_in_the_box_stay_as_they_are(tmp_path):
    x = np.random.default_rng(0).random((3, 1, 4, 4))
    train, _ = Npz(saved(tmp_path / "a.npz", x=x, y=np.arange(3)), classes=3).load()
    np.testing.assert_array_equal(train.x.numpy(), x.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": np.zeros((2, 3))}, "needs arrays named x and y"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(2)}, "y is float64 [2]; give whole numbers"),
        ({"x": np.array(["a", "b"]), "y": np.arange(2)}, "x is <U1; give numbers"),
        ({"x": np.array([{}, 1]), "y": np.arange(2)}, "cannot be read as a .npz of numbers"),
        ({"x": np.full((2, 3), 7.0), "y": np.arange(2)}, "outside the box [0, 1]"),
        ({"x": np.full((2, 3), 1e300), "y": np.arange(2)}, "input 0 holds NaN or infinity"),
        ({"x": np.float64(0.5), "y": np.arange(2)}, "x is float64 []; give inputs [N, ...]"),
        ({"x": np.zeros(2), "y": np.arange(2)}, "x is float64 [2]; give inputs [N, ...]"),
        ({"x": np.zeros((2, 0)), "y": np.arange(2)}, "x is float64 [2, 0]; give inputs"),
        ({"x": np.zeros((2, 3)), "y": np.int64(1)}, "y is int64 []; give whole numbers [N]"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((2, 1), int)}, "y is int64 [2, 1]; give whole"),
        ({"x": np.zeros((2, 3)), "y": np.arange(3)}, "2 inputs but 3 labels"),
    ],
    ids=[
        *("names", "labels", "text", "pickled", "box", "overflow"),
        *("scalar", "1-D", "empty", "one label", "column", "lengths"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, arrays, why):
    name = saved(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="a.npz.*" + re.escape(why)):
        Npz(name).load()


def test_a_damaged_or_missing_file_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read"):
        Npz(str(tmp_path / "a.npz")).load()
    with pytest.raises(FileNotFoundError, match=r"no file .*b\.npz; set data\.train"):
        Npz(str(tmp_path / "b.npz")).load()


def test_a_single_array_is_named(tmp_path):
    np.save(tmp_path / "a.npz.npy", np.zeros((2, 3)))
    (tmp_path / "a.npz.npy").rename(tmp_path / "a.npz")
    with pytest.raises(
        ValueError, match=r"a\.npz is a \.npy file, a single array; .* numpy\.savez"
    ):
        Npz(str(tmp_path / "a.npz")).load()


def npy(shape, body, version=(1, 0), kind="|u1"):
    """An array's file whose header may claim anything."""
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + body


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("x", "why"),
    [
        (npy((2, 3), bytes(5)), "the header of x promises 6 bytes, 5 are there"),
        (npy((2, 3), bytes(7)), "the header of x promises 6 bytes, 7 are there"),
        (npy((1 << 40, 3), bytes(6)), f"x would take {3 << 40} bytes, at most {1 << 30} are read"),
        (npy((1 << 62, 4), b""), f"x would take {1 << 64} bytes"),  # 0 in 64 bits
        (npy((-2, 3), bytes(6)), "the header of x promises -6 bytes, 6 are there"),
        (npy((2, 3), bytes(6), (3, 0)), r"x is of version \(3, 0\) of the format"),
        (npy((2, 3), bytes(6), (9, 9)), r"x is of version \(9, 9\)"),
        (npy("no", bytes(6)), "shape is not valid"),
        (npy((2,), bytes(16), kind="|O"), "x holds pickled objects"),
        (b"\x93NUMPY", "EOF"),
        (b"", "EOF"),
        (b"something else", "magic string"),
    ],
    ids=[
        *("short", "long", "large", "overflow", "negative", "version 3", "version 9", "shape"),
        *("objects", "cut", "empty", "no array"),
    ],
)
def test_an_array_that_claims_what_it_does_not_hold_is_named(tmp_path, x, why, compression):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", npy((2,), bytes(2)))
    why = rf"a\.npz cannot be read as a \.npz of numbers: .*({why})"
    refused_in_little_room(Npz(str(path)).load, why)


def test_of_a_zip_bomb_nothing_is_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            file.write(npy((2, 3), bytes(6)))
            for _ in range(64):
                file.write(bytes(1 << 20))
        archive.writestr("y.npy", npy((2,), bytes(2)))
    why = rf"promises 6 bytes, {6 + (64 << 20)} are there"
    refused_in_little_room(Npz(str(path)).load, why)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_of_the_format_are_read(tmp_path, version):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy((2, 3), bytes([0, 51, 255, 0, 0, 0]), version))
        archive.writestr("y.npy", npy((2,), bytes([0, 1])))
    train, _ = Npz(str(path)).load()
    assert train.x.tolist() == [[0.0, pytest.approx(0.2), 1.0], [0.0, 0.0, 0.0]]


def test_no_flipped_bit_of_an_array_goes_unnoticed(tmp_path):
    path = tmp_path / "a.npz"
    x = np.random.default_rng(0).random((4, 5))
    np.savez_compressed(path, x=x, y=np.arange(4))
    whole = Npz(str(path)).load()[0]
    for _ in each_flipped(path, samples=400):
        try:
            found = Npz(str(path)).load()[0]
        except ValueError as error:
            assert "a.npz" in str(error)
        else:  # a bit that says nothing: a date, say
            assert torch.equal(found.x, whole.x) and torch.equal(found.y, whole.y)
