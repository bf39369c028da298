"""Settings that no training can begin with: a sentence that names them, and nothing is written."""

import json
import re
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast.data import DataError
from hstl_fast.training import DataConfig, fit, fitting
from tests.training.conftest import Configure
from tests.training.processes import variables_of_torchrun

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"output": ""}, "output: expected a path, got none"),
    ({"data": DataConfig()}, "data.path: expected a path, got none"),
    ({"data__path": "/nothing/here"}, "/nothing/here: expected a data set, got nothing there"),
    ({"batch__people": 3}, "batch.people: expected at most the 2 people of the training set of"),
    ({"network__start": "/nothing.pt"}, "No such file or directory: '/nothing.pt'"),
    ({"network__file": "/nothing.json"}, "No such file or directory: '/nothing.json'"),
]


@pytest.mark.parametrize(("fields", "sentence"), WRONG, ids=[next(iter(fields)) for fields, _ in WRONG])
def test_settings(fields: dict[str, Any], sentence: str, configure: Configure, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match=re.escape(sentence)):
        fit(configure(**fields))
    assert not list(tmp_path.glob("run/*/*"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "expected JSON, got a file that is none"),
        ("[]", "expected a JSON object, got a list"),
        ('{"cuts": 1}', "expected the key splits, got ['cuts']"),
        ('{"splits": 5}', "splits must be lists of counts of strips, got 5"),
        ('{"splits": null}', "splits must be lists of counts of strips, got None"),
        ('{"splits": [8]}', "splits must be lists of counts of strips, got [8]"),
        ('{"splits": [[1, 7], [2, 6]]}', "splits must be one for each of the 1 stages, got 2"),
        ('{"splits": [[3, 3]]}', "a divisor of 32 rows; got [3, 3], which sums to 6"),
    ],
)
def test_hierarchies(content: str, sentence: str, configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "hierarchy.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
        fit(configure(network__hierarchy=str(file)))
    assert str(raised.value).startswith(f"network.hierarchy: {file}: ")


def test_a_hierarchy_shapes_the_network(configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "hierarchy.json"
    file.write_text(json.dumps({"splits": [[1, 6, 1]], "linkage": "ward"}))
    config = configure(network__hierarchy=str(file), schedule__steps=1)
    assert torch.load(fit(config), weights_only=True)["network"]["stages"] == [{"split": [4, 24, 4], "channels": [4]}]


@pytest.mark.parametrize("fault", ["{", '{"stem": [4], "stages": [], "pool": true, "strips": 4}'])
def test_networks(fault: str, configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    file.write_text(fault)
    with pytest.raises(ValueError, match=re.escape(f"network.file: {file}: ")):
        fit(configure(network__file=str(file)))


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        ({"TRAIN_SET": [], "TEST_SET": ["001"]}, "expected sequences of the 0 people of the train set, got none"),
        ({"TRAIN_SET": ["9"], "TEST_SET": ["001"]}, "expected sequences of the 1 people of the train set, got none"),
    ],
)
def test_partitions(sets: dict[str, list[str]], sentence: str, configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "partition.json"
    file.write_text(json.dumps(sets))
    with pytest.raises(DataError, match=sentence):
        fit(configure(data__partition=str(file)))


def test_devices_that_are_not_those_of_torchrun(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables_of_torchrun(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"machine.devices: expected auto, or as many as torchrun has started, 2 in"):
        fit(configure(machine__devices="3"))


def test_a_gpu_that_is_not_there(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"machine.accelerator: expected a GPU that torch can use, got none"):
        fit(configure(machine__accelerator="cuda"))


def test_a_port_in_use_under_torchrun(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for name, value in variables_of_torchrun(0, 2, port).items():
            monkeypatch.setenv(name, value)
        sentence = f"the processes cannot meet at 127.0.0.1:{port}: another program uses that port; choose another one"
        with pytest.raises(RuntimeError, match=sentence):
            fit(configure(machine__devices="auto"))


def test_a_batch_that_cannot_be_shared(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Three:
        size, device = 3, torch.device("cpu")

    monkeypatch.setattr(fitting, "launch", lambda _: nullcontext(Three()))
    with pytest.raises(ValueError, match=r"that 3 processes can share equally, got 2 x 2 = 4"):
        fit(configure())
    assert not (tmp_path / "run").exists()
