"""What a checkpoint can hold is stored in plain types; the rest is refused with its place, and nothing is written."""

import enum
import random
import re
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hstl_fast.checkpoints import load_checkpoint, save_checkpoint
from hstl_fast.checkpoints.plain import plain
from tests.helpers.tiny import tiny_model

Point = namedtuple("Point", "x y")


class Kind(enum.Enum):
    FIRST = "first"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


PLAIN = [
    (np.float64(0.1), 0.1),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (Text("a"), "a"),
    (Kind.FIRST, "first"),
    (Level.HIGH, 3),
    (PurePosixPath("a/b"), "a/b"),
    (Point(1, np.float32(2)), (1, 2.0)),
    (OrderedDict(a=OrderedDict(b=1)), {"a": {"b": 1}}),
    (defaultdict(list, {np.int64(1): [np.float64(2)]}), {1: [2.0]}),
    (np.array(["a", "b"]), ["a", "b"]),
    (None, None),
    (1 << 127, 1 << 127),
    (float("inf"), float("inf")),
    (b"\0\xff", b"\0\xff"),
]


@pytest.mark.parametrize(("value", "expected"), PLAIN, ids=[type(value).__name__ for value, _ in PLAIN])
def test_values_become_plain(value: Any, expected: Any) -> None:
    found = plain(value, "training")
    assert found == expected
    assert type(found) is type(expected)


def test_a_counter_stays_one() -> None:
    found = plain(Counter({np.int64(7): 2}), "scheduler")
    assert found == Counter({7: 2})
    assert type(found) is Counter
    assert all(type(key) is int for key in found)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3)[:, ::2],
        np.arange(3, dtype=">f8"),
        np.float64([[1, 2], [3, 4]])[::-1],
        np.array(2.0),
        np.array([True, False]),
    ],
    ids=["uint32 strided", "big-endian", "negative strides", "scalar", "bool"],
)
def test_arrays_become_tensors(array: np.ndarray[Any, Any]) -> None:
    found = plain(array, "training")
    assert type(found) is torch.Tensor
    assert np.array_equal(found.numpy(), array)
    assert found.numpy().dtype == array.dtype.newbyteorder("=")
    assert not np.shares_memory(found.numpy(), array)


def test_tensors_lose_their_history_and_the_rest_of_their_memory() -> None:
    whole = torch.arange(1000.0)
    parameter = plain(nn.Parameter(whole), "x")
    assert type(parameter) is torch.Tensor
    assert not parameter.requires_grad
    part = plain(whole[3:5], "x")
    assert part.untyped_storage().nbytes() == 8
    assert torch.equal(part, whole[3:5])
    assert torch.equal(plain(torch.tensor([1 + 2j]).conj(), "x"), torch.tensor([1 - 2j]))


def endless() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"x": [1, 2, 3, random.random]}, "scheduler['x'][3]: cannot be stored, got the function random"),
        ({"x": lambda epoch: epoch}, "scheduler['x']: cannot be stored, got the function <lambda>"),
        ([int], "scheduler[0]: cannot be stored, got the class int"),
        ({"a": {1, 2}}, "scheduler['a']: cannot be stored, got an object of the class set"),
        ((deque([1]),), "scheduler[0]: cannot be stored, got an object of the class collections.deque"),
        (1j, "scheduler: cannot be stored, got an object of the class complex"),
        ([np.datetime64("2020")], "scheduler[0]: cannot be stored, got an object of the class datetime.date"),
        (np.array([None]), "scheduler: cannot be stored, got an array of NumPy's type object"),
        (np.longdouble(1), "scheduler: cannot be stored, got a number of NumPy's type float128"),
        (np.ma.array([1.0], mask=[True]), "scheduler: cannot be stored, got an object of the class numpy.ma"),
        ({1: "a", np.float64(1): "b"}, None),
        ({"1": 0, np.str_("1"): 1}, None),
        (
            {Text("a"): 0, Kind.FIRST: 1, "first": 2},
            "scheduler['first']: cannot be stored, another key of scheduler is",
        ),
        ({(1, torch.float32): 0}, None),
        ({frozenset(): 0}, "scheduler, its key frozenset(): cannot be stored, got an object of the class frozenset"),
        (
            {"t": torch.zeros(2).to_sparse()},
            "scheduler['t']: cannot be stored, got a tensor that is not dense",
        ),
        (
            torch.zeros(2, device="meta"),
            "scheduler: cannot be stored, got a tensor without numbers",
        ),
        (endless(), "scheduler: cannot be stored, it is nested more than 100 deep"),
        (torch.Generator(), "scheduler: cannot be stored, got an object of the class torch._C.Generator"),
    ],
)
def test_the_rest_is_refused_with_its_place(value: Any, sentence: str | None) -> None:
    if sentence is None:
        assert plain(value, "scheduler") == value
        return
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        plain(value, "scheduler")


def test_everything_plain_is_read_back(tmp_path: Path) -> None:
    training = {str(i): value for i, (value, _) in enumerate(PLAIN)}
    training |= {"python": random.getstate(), "numpy": np.random.default_rng(3).bit_generator.state}
    training |= {"torch": torch.get_rng_state(), "legacy": np.random.RandomState(3).get_state()}
    model = tiny_model()
    before = training["torch"] = torch.get_rng_state()
    save_checkpoint(tmp_path / "a.pt", model, training=training)
    found = load_checkpoint(tmp_path / "a.pt").training
    assert found is not None
    assert [found[str(i)] for i in range(len(PLAIN))] == [expected for _, expected in PLAIN]
    random.setstate(found["python"])
    assert np.random.default_rng(3).bit_generator.state == found["numpy"]
    assert torch.equal(found["torch"], before)
    legacy = np.random.RandomState()
    legacy.set_state((found["legacy"][0], found["legacy"][1].numpy(), *found["legacy"][2:]))
    assert legacy.random() == np.random.RandomState(3).random()


Change = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]
NOT_PLAIN: dict[str, tuple[Change, str]] = {
    "optimizer": (
        lambda optimizer, *_: optimizer["param_groups"][0].update(hook=len),
        r"^optimizer\['param_groups'\]\[0\]\['hook'\]: cannot be stored, got the function len$",
    ),
    "state": (
        lambda optimizer, *_: optimizer["state"][0].update(hook=len),
        r"^optimizer\['state'\]\['stem\.0\.weight'\]\['hook'\]: cannot be stored, got the function len$",
    ),
    "scheduler": (
        lambda _, scheduler, __: scheduler.update(x=[0, len]),
        r"^scheduler\['x'\]\[1\]: cannot be stored, got the function len$",
    ),
    "training": (
        lambda *given: given[2].update(deep={"er": object()}),
        r"^training\['deep'\]\['er'\]: cannot be stored, got an object of the class object$",
    ),
}


@pytest.mark.parametrize("place", NOT_PLAIN)
def test_what_cannot_be_stored_leaves_the_earlier_file(place: str, tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "a.pt"
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path.write_bytes(b"earlier")
    given: tuple[dict[str, Any], ...] = (optimizer.state_dict(), {}, {})
    change, sentence = NOT_PLAIN[place]
    change(*given)
    with pytest.raises(ValueError, match=sentence):
        save_checkpoint(path, model, *given[:2], training=given[2])
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_learning_rate_of_numpy_is_read_back(tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=np.float32(0.25), weight_decay=np.float64(0.5))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=np.float64(0.1))
    save_checkpoint(tmp_path / "a.pt", model, optimizer.state_dict(), scheduler.state_dict(), iteration=np.int64(5))
    found = load_checkpoint(tmp_path / "a.pt")
    assert found.optimizer is not None
    assert (found.optimizer["param_groups"][0]["lr"], found.iteration) == (0.25, 5)
    assert type(found.optimizer["param_groups"][0]["lr"]) is float
    assert found.scheduler is not None
    assert found.scheduler["base_lrs"] == [0.25]
