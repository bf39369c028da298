"""Checkpoints of models in wrappers, with folded weights, or sharded: what can be read, or a refusal by name."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

from hstl_fast import HSTL
from hstl_fast.checkpoints import load_checkpoint, official_optimizer_state, save_checkpoint
from tests.helpers.tiny import TINY, differing, silhouettes, tiny_model

distributed = torch.distributed
needs_distributed = pytest.mark.skipif(not distributed.is_available(), reason="torch has no distributed package")


class Inside(nn.Module):
    """A module that somebody keeps the network in, as Lightning Fabric does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class Holder(nn.Module):
    """A module of which the network is one part."""

    def __init__(self, model: HSTL) -> None:
        super().__init__()
        self.encoder = nn.Sequential(model)


def compiled_in_place(model: HSTL) -> nn.Module:
    model.compile()
    return model


def compiled_part(model: HSTL) -> nn.Module:
    model.stages[0][0] = torch.compile(model.stages[0][0])
    return model


def synchronised(model: HSTL) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


WRAPPERS: dict[str, Callable[[HSTL], nn.Module]] = {
    "alone": lambda model: model,
    "DataParallel": nn.DataParallel,
    "torch.compile": torch.compile,
    "compile in place": compiled_in_place,
    "compiled part": compiled_part,
    "AveragedModel": AveragedModel,
    "module": Inside,
    "several": lambda model: torch.compile(Inside(nn.DataParallel(model))),
    "SyncBatchNorm": synchronised,
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapped_model_is_unwrapped(kind: str, tmp_path: Path) -> None:
    wrapped = WRAPPERS[kind](tiny_model())
    optimizer = torch.optim.Adam(wrapped.parameters())
    for parameter in wrapped.parameters():
        parameter.grad = torch.ones_like(parameter)
    save_checkpoint(tmp_path / "a.pt", wrapped, optimizer.state_dict())
    expected = tiny_model()
    assert differing(expected, load_checkpoint(tmp_path / "a.pt").model) == []
    optimizer.step()
    save_checkpoint(tmp_path / "a.pt", wrapped, optimizer)
    found = load_checkpoint(tmp_path / "a.pt")
    assert found.not_carried == []
    assert found.optimizer is not None
    torch.testing.assert_close(found.optimizer["state"], dict(optimizer.state_dict()["state"]), rtol=0, atol=0)
    assert set(differing(expected, found.model)) == {name for name, _ in expected.named_parameters()}


class Scaled(nn.Module):
    """A low-rank change of a weight, the way LoRA is written as a parametrisation; it draws when it trains."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows = weight.shape[0] * weight.shape[1]
        self.a, self.b = nn.Parameter(torch.rand(rows, 1)), nn.Parameter(torch.rand(1, weight.numel() // rows))

    def forward(self, weight: Tensor) -> Tensor:
        change = (self.a @ self.b).reshape(weight.shape)
        return weight + (torch.rand_like(change) if self.training else change)


def weight_norm(layer: nn.Module) -> None:
    parametrizations.weight_norm(layer, "weight", dim=1)


def spectral_norm(layer: nn.Module) -> None:
    parametrizations.spectral_norm(layer, "weight")


def low_rank(layer: nn.Module) -> None:
    assert isinstance(layer.weight, Tensor)
    parametrize.register_parametrization(layer, "weight", Scaled(layer.weight))


def pruned(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "weight", amount=0.3)


def pruned_twice(layer: nn.Module) -> None:
    pruned(layer)
    prune.l1_unstructured(layer, "weight", amount=0.5)


def old_weight_norm(layer: nn.Module) -> None:
    nn.utils.weight_norm(layer, "weight", dim=1)


def old_spectral_norm(layer: nn.Module) -> None:
    nn.utils.spectral_norm(layer, "weight")


FOLDED = (weight_norm, spectral_norm, low_rank, pruned, pruned_twice, old_weight_norm, old_spectral_norm)


@pytest.mark.parametrize("change", FOLDED)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated:FutureWarning")
def test_weights_that_are_computed_are_folded(change: Callable[[nn.Module], None], tmp_path: Path) -> None:
    model = tiny_model()
    layer = model.stages[0][0]
    change(layer)
    with torch.no_grad():
        # The layer's own attribute is what the last forward pass computed, older than its parameters.
        for parameter in layer.parameters():
            parameter.mul_(1.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_checkpoint(tmp_path / "a.pt", model)
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    found = load_checkpoint(tmp_path / "a.pt").model
    clip = silhouettes()
    for hook in list(layer._forward_pre_hooks.values()):
        hook(layer.eval(), None)  # as a call of the layer begins
    expected = model.eval().stages[0][0].weight
    torch.testing.assert_close(found.stages[0][0].weight, expected, rtol=1e-6, atol=0)
    assert set(differing(found, tiny_model())) == {"stages.0.0.weight"}
    torch.testing.assert_close(found.eval().embed(clip), model.embed(clip), rtol=1e-4, atol=1e-4)


def test_an_optimiser_of_what_is_folded_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    pruned(model.stem[0])
    optimizer = torch.optim.Adam(model.parameters())
    for state in (optimizer, optimizer.state_dict()):
        with pytest.raises(ValueError, match=r"optimizer must be over tensors of .*, got stem\.0\.weight_orig;"):
            save_checkpoint(tmp_path / "a.pt", model, state)
    assert list(tmp_path.iterdir()) == []


class Adapter(nn.Module):
    """A layer in a module of its own beside a change of it, as PEFT does it."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.Parameter(torch.zeros(2, 2))


def with_adapter(model: HSTL) -> object:
    model.stages[0][0] = Adapter(model.stages[0][0])
    return model


def with_more(model: HSTL) -> object:
    model.stem[0].register_parameter("lora_A", nn.Parameter(torch.zeros(2)))
    return model


def with_other_norm(model: HSTL) -> object:
    model.norm = nn.LayerNorm(4)
    return model


def without_statistics(model: HSTL) -> object:
    model.norm = nn.BatchNorm1d(4, affine=False)
    return model


def with_other_classifier(model: HSTL) -> object:
    model.classifier = type(model.classifier)(TINY.parts, TINY.channels, 7)
    return model


def on_no_device(model: HSTL) -> object:
    return model.to("meta")


class FullyShardedDataParallel(Inside):
    """A stand-in with the name of torch's."""


REFUSED: list[tuple[Callable[[HSTL], object], type[Exception], str]] = [
    (
        with_adapter,
        ValueError,
        r"lacks stages\.0\.0\.weight and has stages\.0\.0\.base_layer\.weight, stages\.0\.0\.lora_A$",
    ),
    (with_more, ValueError, r"released network only, it also has stem\.0\.lora_A; what they do has to be merged"),
    (with_other_norm, ValueError, r"lacks norm\.running_mean, norm\.running_var, norm\.num_batches_tracked$"),
    (without_statistics, ValueError, r"lacks norm\.weight, norm\.bias$"),
    (with_other_classifier, ValueError, r"classifier\.weight must have the shape .* config gives, got \[\d+, 4, 7\]$"),
    (on_no_device, ValueError, r"cannot be stored, got a tensor without numbers, on the device meta$"),
    (FullyShardedDataParallel, TypeError, r"FullyShardedDataParallel, which flattens them; fully_shard keeps them$"),
    (Holder, TypeError, r"got Holder; its HSTL is its encoder\.0, give that$"),
    (lambda _: nn.Linear(2, 2), TypeError, r"must be an HSTL, alone or in a wrapper of torch; got Linear$"),
    (lambda model: model.state_dict(), TypeError, r"must be an HSTL, alone or in a wrapper of torch; got OrderedDict$"),
]


@pytest.mark.parametrize(("change", "kind", "sentence"), REFUSED)
def test_other_models_are_refused_by_name(change: Any, kind: type[Exception], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"earlier")
    with pytest.raises(kind, match=sentence):
        save_checkpoint(path, change(tiny_model()))
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@needs_distributed
def test_a_model_under_ddp_is_unwrapped(alone: None, tmp_path: Path) -> None:
    wrapped = nn.parallel.DistributedDataParallel(tiny_model())
    save_checkpoint(tmp_path / "a.pt", wrapped, torch.optim.Adam(wrapped.parameters()))
    assert differing(tiny_model(), load_checkpoint(tmp_path / "a.pt").model) == []


@needs_distributed
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")
def test_a_sharded_model_is_gathered(alone: None, tmp_path: Path) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
    model = tiny_model()
    for layer in (*model.stem, *model.stages[0]):
        fsdp.fully_shard(layer, mesh=mesh)
    fsdp.fully_shard(model, mesh=mesh)
    optimizer = torch.optim.Adam(model.parameters())
    model(silhouettes()).logits.sum().backward()
    optimizer.step()
    assert hasattr(optimizer.state_dict()["state"][0]["exp_avg"], "full_tensor")
    save_checkpoint(tmp_path / "a.pt", model, optimizer.state_dict())
    found = load_checkpoint(tmp_path / "a.pt")
    assert found.not_carried == []
    assert found.optimizer is not None
    whole = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state(model)}
    assert all(torch.equal(value, whole[name]) for name, value in found.model.state_dict().items())
    for number, entry in optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            expected = value.full_tensor() if hasattr(value, "full_tensor") else value
            assert torch.equal(found.optimizer["state"][number][key], expected)
    assert official_optimizer_state(optimizer, model)["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    with pytest.raises(ValueError, match=r"whole tensors to load into, stem\.0\.weight is sharded"):
        model.load_official_state_dict(model.official_state_dict())


def state(model: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from model.state_dict().items()


# Shards a model over two processes, trains a step, and saves it from both.
SHARDED = """
import sys
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from hstl_fast.checkpoints import save_checkpoint
from tests.helpers.tiny import silhouettes, tiny_model

folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", store=distributed.FileStore(folder + "/store", 2), rank=rank, world_size=2)
mesh = distributed.device_mesh.init_device_mesh("cpu", (2,))
model = tiny_model()
fully_shard(model, mesh=mesh)
optimizer = torch.optim.Adam(model.parameters())
model(silhouettes()).logits.sum().backward()
optimizer.step()
save_checkpoint(f"{folder}/{rank}.pt", model, optimizer)
try:
    save_checkpoint(f"{folder}/missing/{rank}.pt", model, optimizer)
except Exception as error:
    print(type(error).__name__, error)
distributed.destroy_process_group()
"""


@pytest.mark.slow
@needs_distributed
def test_the_first_of_the_processes_that_share_a_model_writes(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(tmp_path), str(rank)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0].startswith("FileNotFoundError ")
    assert said[1].startswith("ProcessError FileNotFoundError: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.pt", "store"]
    found = load_checkpoint(tmp_path / "0.pt")
    model = tiny_model()
    optimizer = torch.optim.Adam(model.parameters())
    model(silhouettes()).logits.sum().backward()
    optimizer.step()
    assert found.optimizer is not None
    for name, value in found.model.named_parameters():
        torch.testing.assert_close(value, model.get_parameter(name), rtol=1e-4, atol=1e-6)
    shapes = [entry["exp_avg"].shape for entry in found.optimizer["state"].values()]
    assert shapes == [parameter.shape for parameter in model.parameters()]
