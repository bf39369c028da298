"""OpenGait pickles: what numpy writes is read, and nothing that a file asks for is run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import SilhouetteError, read
from hstl_fast.silhouettes.pickles import load_array
from tests.silhouettes.helpers import fails


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("fortran", [False, True])
def test_opengait_pickles_of_every_protocol(
    tmp_path: Path, sequence: NDArray[np.uint8], protocol: int, fortran: bool
) -> None:
    array = np.asfortranarray(sequence) if fortran else sequence
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(array, protocol=protocol))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)


class _Permuted:
    """Pickles as numpy 2.4 writes an array whose memory is in an order of axes of its own."""

    def __init__(self, memory: NDArray[np.generic], axes: object) -> None:
        self.memory, self.axes = memory, axes

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        rebuild, (_, dtype, shape, _) = np.ascontiguousarray(self.memory).__reduce_ex__(5)[:2]  # type: ignore[misc]
        return rebuild, (self.memory.tobytes(), dtype, shape, "K", self.axes)


def test_pickled_arrays_with_permuted_axes(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    (tmp_path / "own.pkl").write_bytes(pickle.dumps(sequence.transpose(1, 0, 2), protocol=5))
    memory = sequence.transpose(2, 0, 1)
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(_Permuted(memory, (1, 2, 0)), protocol=5))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)
    np.testing.assert_array_equal(load_array(tmp_path / "own.pkl"), sequence.transpose(1, 0, 2))


@pytest.mark.parametrize("axes", [(0, 1), (0, 0, 1), (0, 1, 3), (-1, 0, 1), "012", ("0", 1, 2), (0, 1, None)])
def test_pickled_axes_that_are_no_permutation(tmp_path: Path, axes: object) -> None:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(_Permuted(np.zeros((2, 64, 64), np.uint8), axes), protocol=5))
    fails(tmp_path / "walk.pkl", "order of axes is not a permutation")


@pytest.mark.parametrize("dtype", ["bool", ">f4", "<f8", "f2"])
def test_pickled_dtypes(tmp_path: Path, sequence: NDArray[np.uint8], dtype: str) -> None:
    binary = sequence > 127
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(binary.astype(dtype)))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), binary * np.uint8(255))


def test_pickle_written_by_an_old_numpy(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    new = pickle.dumps(sequence, protocol=2)
    assert b"numpy._core" in new or b"numpy.core" in new
    (tmp_path / "walk.pkl").write_bytes(new.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)


def test_pickled_list_of_frames(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(list(sequence)))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)
    (tmp_path / "mixed.pkl").write_bytes(pickle.dumps([sequence[0], "text"]))
    fails(tmp_path / "mixed.pkl", "list of frames [H, W]", "a list of 2 things, 1 of them arrays [[64, 64]]")


class _Runs:
    """What a hostile pickle does: on loading, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": x}, lambda x: (np.zeros(3), x)])
def test_pickle_runs_nothing(tmp_path: Path, wrap: object) -> None:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(wrap(_Runs(tmp_path / "ran"))))  # type: ignore[operator]
    fails(tmp_path / "walk.pkl", "nothing was run")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cposix\nsystem\n(S'true'\ntR.", "posix.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"S'x'\nP0\n.", None),
        (b"Pan id\n.", "a persistent id"),
        (pickle.PROTO + b"\x04\x8c\x06a\nb\xc2\x85c\x8c\x01d\x93.", "names a b c.d; nothing"),
        (b"c" + b"x" * 9000 + b"\ny\n.", "x" * 80 + "..."),
    ],
)
def test_pickle_names_the_offending_global(tmp_path: Path, content: bytes, named: str | None) -> None:
    (tmp_path / "walk.pkl").write_bytes(content)
    fails(tmp_path / "walk.pkl", *([named] if named else []))


def array_pickle(dtype: str, shape: tuple[object, ...], data: bytes) -> bytes:
    """A pickle that claims an array of any dtype and shape over any bytes."""

    class Claim:
        def __reduce__(self) -> tuple[object, ...]:
            reconstruct, arguments, _ = np.zeros(1, np.uint8).__reduce__()  # type: ignore[misc]
            return reconstruct, arguments, (1, shape, np.dtype(dtype), False, data)

    return pickle.dumps(Claim())


@pytest.mark.parametrize(
    "content",
    [
        array_pickle("u1", (2, 64, 64), b"short"),
        array_pickle("u1", (-1, 64, 64), b""),
        array_pickle("u1", (2**40, 64, 64), b"x" * 64),
        array_pickle("f8", (1, 2, 2), b"x" * 31),
        array_pickle("u1", ("64", 64, 64), b""),
        pickle.dumps(np.array([{"a": 1}, None], dtype=object)),
        pickle.dumps(np.array(["a", "b"])),
        pickle.dumps(np.zeros(3, [("a", "u1"), ("b", "f4")])),
        pickle.dumps(np.zeros(3, "M8[s]")),
        pickle.dumps({"silhouettes": np.zeros((3, 64, 64), np.uint8)}),
        pickle.dumps("hello"),
        pickle.dumps(np.zeros((2, 64, 64), np.uint8))[:-3000],
        pickle.dumps(np.zeros((2, 64, 64), np.uint8))[:40],
        b"",
        b"not a pickle",
        b"cnumpy\nndarray\n(tR.",
        b"cnumpy\nndarray\n.",
        b"cnumpy\ndtype\n(tR.",
    ],
)
def test_bad_pickles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "walk.pkl").write_bytes(content)
    fails(tmp_path / "walk.pkl")


def test_a_small_pickle_cannot_make_a_huge_message(tmp_path: Path) -> None:
    """Forty lists, each holding the one before twice, stand for a dtype: printed, they would be 2^40 brackets long."""
    nested = b"(lp0\n" + b"".join(b"0(g%d\ng%d\nlp%d\n" % (i, i, i + 1) for i in range(40))
    dtype = b"cnumpy\ndtype\n(" + nested + b"tR"
    claim = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I0\nt" + dtype
    (tmp_path / "walk.pkl").write_bytes(claim + b"I00\nS''\ntb.")
    fails(tmp_path / "walk.pkl", "its dtype, a list, is not a plain number type")


def test_a_pickle_cannot_alter_what_the_next_one_meets(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    """BUILD with a slot state sets attributes on whatever is on the stack, here on the placeholder class itself."""
    (tmp_path / "bad.pkl").write_bytes(b"cnumpy\nndarray\n(N}S'__setstate__'\nNstb.")
    with pytest.raises(SilhouetteError):
        read(tmp_path / "bad.pkl")
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(sequence))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)


@pytest.mark.parametrize("attribute", [b"value", b"__init__"])
def test_a_pickle_cannot_pass_something_else_for_an_array(tmp_path: Path, attribute: bytes) -> None:
    """BUILD replaces what every new placeholder begins with."""
    altered = b"cnumpy\nndarray\np0\n(N}S'__init__'\nc_codecs\nencode\nsS'value'\nS'text'\nstb0"
    (tmp_path / "walk.pkl").write_bytes(altered + b"g0\n(S'x'\ntR.")
    fails(tmp_path / "walk.pkl")
    (tmp_path / "walk.pkl").write_bytes(b"cnumpy\nndarray\np0\n(N}S'" + attribute + b"'\nS'text'\nstbg0\n(tR.")
    fails(tmp_path / "walk.pkl")
