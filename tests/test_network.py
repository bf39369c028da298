"""A network knows what its preset and its weights are called."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from hstl_fast import HSTL
from hstl_fast.checkpoints import save_checkpoint
from hstl_fast.evaluation.embeddings import Embeddings, check_comparable
from hstl_fast.network import SHIPPED_FILE, Network
from tests.helpers.tiny import TINY, silhouettes, tiny_model


def test_a_seed_gives_the_same_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    network, again, other = (Network.from_seed("casia-b", seed) for seed in (5, 5, 6))
    assert torch.rand(1) == expected
    assert (network.preset, network.weights, network.untrained) == ("casia-b", "seed:5", True)
    first, second, third = (n.model.state_dict() for n in (network, again, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, third[name]) for name, value in first.items())


@pytest.mark.parametrize("preset", [None, "gait3d"])
def test_a_checkpoint_is_named_by_its_digest(preset: str | None, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": HSTL.from_preset("gait3d", num_classes=2).official_state_dict()}, path)
    network = Network.from_checkpoint(path, preset)
    assert network.preset == "gait3d"
    assert network.weights == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert not network.untrained
    assert network.model.config.num_classes == 2


def test_a_custom_network_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save_checkpoint(path, tiny_model())
    for preset in (None, "custom"):
        network = Network.from_checkpoint(path, preset)
        assert (network.preset, network.model.config) == ("custom", TINY)
    with pytest.raises(ValueError, match=r"weights\.pt: holds the network of stem \[4\], .* not gait3d$"):
        Network.from_checkpoint(path, "gait3d")


def test_a_published_network_is_no_custom_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save_checkpoint(path, HSTL.from_preset("casia-b", num_classes=2))
    with pytest.raises(ValueError, match=r"weights\.pt: holds the network casia-b, not a custom one$"):
        Network.from_checkpoint(path, "custom")


def test_two_custom_networks_are_never_compared(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        save_checkpoint(tmp_path / f"{seed}.pt", tiny_model(seed))
        network = Network.from_checkpoint(tmp_path / f"{seed}.pt")
        vectors = network.model.embed([silhouettes(1)[0]]).numpy()
        found.append(Embeddings(vectors, ("a",), np.array([3]), network.preset, network.weights, "0"))
    check_comparable(found[0], found[0])
    with pytest.raises(ValueError, match="gallery and probe must have the same weights to be compared; got sha256:"):
        check_comparable(*found)


def test_the_network_that_comes_along_is_known_by_its_file(tmp_path: Path) -> None:
    network = Network.shipped()
    assert network.preset == "walkers"
    assert network.knows_walkers_only
    assert not network.untrained
    copy = tmp_path / "renamed.pt"
    copy.write_bytes(SHIPPED_FILE.read_bytes())
    for preset in (None, "walkers"):
        assert Network.from_checkpoint(copy, preset)[1:] == network[1:]
    with pytest.raises(ValueError, match=r"renamed\.pt: holds the network walkers, not a custom one"):
        Network.from_checkpoint(copy, "custom")


def test_another_network_of_the_same_shape_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    save_checkpoint(path, HSTL(Network.shipped().model.config))
    assert Network.from_checkpoint(path).preset == "custom"
    with pytest.raises(ValueError, match=r"mine\.pt: holds the network custom, not that of walkers\.pt"):
        Network.from_checkpoint(path, "walkers")
