"""A training that begins with the weights of another: the same network, and the same people or a new classifier."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hstl_fast import HSTL
from hstl_fast.checkpoints import load_checkpoint, load_weights, save_checkpoint, with_new_classifier
from tests.helpers.tiny import TINY, differing, tiny_model

PEOPLE = ["001", "002", "005"]


@pytest.fixture(scope="module")
def model() -> HSTL:
    return tiny_model()


@pytest.fixture(scope="module")
def path(model: HSTL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "a.pt"
    save_checkpoint(path, model, training={"classes": PEOPLE})
    return path


def test_the_people_of_the_classifier_are_read_back(path: Path) -> None:
    training = load_checkpoint(path).training
    assert training is not None
    assert training["classes"] == PEOPLE


@pytest.mark.parametrize("num_classes", [3, 5])
def test_a_new_classifier_leaves_the_other_weights(model: HSTL, num_classes: int) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = with_new_classifier(model.eval(), num_classes)
    assert changed.config == replace(TINY, num_classes=num_classes)
    assert not any(module.training for module in changed.modules())
    others = {name: value for name, value in changed.state_dict().items() if name != "classifier.weight"}
    assert all(torch.equal(value, before[name]) for name, value in others.items())
    assert all(value.data_ptr() != model.state_dict()[name].data_ptr() for name, value in others.items())
    weight = changed.classifier.weight
    assert weight.shape == (TINY.parts, TINY.channels, num_classes)
    assert weight.requires_grad
    assert model.config == TINY
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert changed(torch.rand(1, 3, 64, 44)).logits.shape == (1, TINY.parts, num_classes)


def test_a_new_classifier_is_drawn_like_that_of_a_new_model(model: HSTL) -> None:
    torch.manual_seed(7)
    first = with_new_classifier(model.double(), 4).classifier.weight
    torch.manual_seed(7)
    expected = type(model.classifier)(TINY.parts, TINY.channels, 4).weight
    model.float()
    assert first.dtype == torch.float64
    assert torch.equal(first, expected.double())


def test_a_classifier_of_nobody_is_refused(model: HSTL) -> None:
    with pytest.raises(ValueError, match=r"num_classes must be a positive integer, got 0"):
        with_new_classifier(model, 0)


def test_a_training_begins_with_the_weights_of_a_file(path: Path, model: HSTL) -> None:
    assert differing(load_weights(path, TINY, new_classifier=False, classes=PEOPLE), model) == []
    started = load_weights(path, replace(TINY, num_classes=8), new_classifier=True)
    assert started.config.num_classes == 8
    assert differing(load_weights(path, TINY, new_classifier=True), model) == ["classifier.weight"]


def test_other_people_are_refused_with_the_way_out(path: Path) -> None:
    way_out = r"network\.new_classifier=true continues with a new classifier$"
    with pytest.raises(ValueError, match=rf"a\.pt: its classifier is for 3 people, the data has 8; {way_out}"):
        load_weights(path, replace(TINY, num_classes=8), new_classifier=False)
    with pytest.raises(ValueError, match=rf"a\.pt: .* other people \('005', but '006' in the data\); {way_out}"):
        load_weights(path, TINY, new_classifier=False, classes=["001", "002", "006"])
    with pytest.raises(ValueError, match=rf"a\.pt: .* other people \(3, but 2 in the data\); {way_out}"):
        load_weights(path, TINY, new_classifier=False, classes=PEOPLE[:2])


def test_another_network_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.pt: .* must hold the network of the training; strips must be 8, got 4$"):
        load_weights(path, replace(TINY, strips=8), new_classifier=True)


def test_a_file_that_does_not_say_its_network_is_taken_for_that_of_the_training(model: HSTL, tmp_path: Path) -> None:
    torch.save({"model": model.official_state_dict()}, tmp_path / "a.pt")
    assert differing(load_weights(tmp_path / "a.pt", TINY, new_classifier=False), model) == []
