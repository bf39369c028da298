"""Files as people have them: prefixes, bare dicts, own names, Lightning's; the rest is told what to do."""

import json
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hstl_fast import HSTL, PRESETS, HSTLConfig
from hstl_fast.checkpoints import load_checkpoint, load_weights, save_checkpoint
from hstl_fast.models.released import own_shapes
from tests.helpers.tiny import TINY, differing, silhouettes, tiny_model

PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "network.",
    "backbone.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.backbone.",
    "module.model._orig_mod.network.",
]


@pytest.fixture(scope="module")
def model() -> HSTL:
    """A published network with few identities."""
    torch.manual_seed(0)
    return HSTL.from_preset("casia-b", num_classes=2)


@pytest.fixture(scope="module")
def own(model: HSTL) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def official(model: HSTL) -> dict[str, torch.Tensor]:
    return model.official_state_dict()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def prefixed(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("names", ["own", "official"])
def test_prefixes_come_off(names: str, prefix: str, tmp_path: Path) -> None:
    tiny = tiny_model()
    tensors = dict(tiny.state_dict()) if names == "own" else tiny.official_state_dict()
    path = saved(tmp_path / "a.pt", {"model": prefixed(tensors, prefix), "network": TINY.to_dict()})
    assert differing(HSTL.from_official_checkpoint(path), tiny) == []
    bare = saved(tmp_path / "b.pt", prefixed(tensors, prefix))
    assert differing(load_weights(bare, TINY, new_classifier=False), tiny) == []


@pytest.mark.parametrize("names", ["own", "official"])
def test_bare_dicts_are_recognised_by_their_shapes(
    names: str, model: HSTL, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = saved(tmp_path / "a.pt", OrderedDict(request.getfixturevalue(names)))
    found = load_checkpoint(path)
    assert found.model.config == replace(PRESETS["casia-b"], num_classes=2)
    assert differing(found.model, model) == []
    assert found.not_carried == []
    assert differing(HSTL.from_official_checkpoint(path, "casia-b"), model) == []
    with pytest.raises(ValueError, match=r"a\.pt: holds the network casia-b for 2 people, not gait3d$"):
        HSTL.from_official_checkpoint(path, "gait3d")


def test_own_names_of_another_preset_are_recognised(tmp_path: Path) -> None:
    model = HSTL.from_preset("gait3d", 2)
    found = HSTL.from_official_checkpoint(saved(tmp_path / "a.pt", model.state_dict()))
    assert found.config == model.config
    assert differing(found, model) == []


@pytest.mark.parametrize("wrap", ["DataParallel", "AveragedModel", "compile"])
def test_state_dicts_of_wrapped_models_are_taken(wrap: str, tmp_path: Path) -> None:
    tiny = tiny_model()
    wrapped: Any = {
        "DataParallel": nn.DataParallel,
        "AveragedModel": torch.optim.swa_utils.AveragedModel,
        "compile": torch.compile,
    }[wrap](tiny)
    path = saved(tmp_path / "a.pt", wrapped.state_dict())
    assert any(name.split(".")[0] in ("module", "_orig_mod") for name in wrapped.state_dict())
    assert differing(load_weights(path, TINY, new_classifier=False), tiny) == []


def test_parts_that_were_compiled_are_taken(tmp_path: Path) -> None:
    tiny, expected = tiny_model(), tiny_model()
    tiny.stem[0] = torch.compile(tiny.stem[0])
    assert "stem.0._orig_mod.weight" in tiny.state_dict()
    path = saved(tmp_path / "a.pt", tiny.state_dict())
    assert differing(load_weights(path, TINY, new_classifier=False), expected) == []


def test_a_lightning_checkpoint_is_taken(tmp_path: Path) -> None:
    tiny = tiny_model()
    optimizer = torch.optim.Adam(tiny.parameters())
    tiny(silhouettes()).embeddings.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    content = {
        "epoch": 3,
        "global_step": 70,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed(dict(tiny.state_dict()), "network."),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "network": TINY.to_dict(),
    }
    found = load_checkpoint(saved(tmp_path / "a.ckpt", content))
    assert differing(found.model, tiny) == []
    assert (found.iteration, found.scheduler) == (70, scheduler.state_dict())
    assert found.not_carried == ["no place here for epoch, pytorch-lightning_version"]
    assert found.optimizer is not None
    torch.testing.assert_close(found.optimizer["state"], dict(optimizer.state_dict()["state"]), rtol=0, atol=0)


def test_a_loop_of_somebodys_own_goes_on(tmp_path: Path) -> None:
    tiny = tiny_model()
    optimizer = torch.optim.AdamW(tiny.parameters(), lr=0.5)
    tiny(silhouettes()).embeddings.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    content = {"model_state_dict": tiny.state_dict(), "optimizer_state_dict": state, "network": TINY.to_dict()}
    found = load_checkpoint(saved(tmp_path / "a.pt", content))
    assert found.optimizer is not None
    again = torch.optim.AdamW(found.model.parameters())
    again.load_state_dict(found.optimizer)
    torch.testing.assert_close(again.state_dict(), state, rtol=0, atol=0)

    state["state"][0]["exp_avg"] = torch.zeros(3)
    found = load_checkpoint(saved(tmp_path / "a.pt", content))
    assert found.not_carried == [
        "optimizer: stem.0.weight: exp_avg must have the shape [1, 4, 1, 3, 3, 3], got [3]",
    ]
    assert found.optimizer is not None
    assert 0 not in found.optimizer["state"]


def test_names_of_two_networks_are_refused(tmp_path: Path) -> None:
    tensors = tiny_model().official_state_dict()
    both = {**prefixed(tensors, "model."), **prefixed(tensors, "backbone.")}
    path = saved(tmp_path / "a.pt", {"state_dict": both})
    with pytest.raises(
        ValueError, match=r"a\.pt: holds more than one network: 'model\.arme1\S+' and 'backbone\.arme1\S+'; store"
    ):
        HSTL.from_official_checkpoint(path)


@pytest.mark.parametrize("config", [TINY, *PRESETS.values()], ids=["tiny", *PRESETS])
def test_shapes_of_own_names(config: HSTLConfig) -> None:
    with torch.device("meta"):
        expected = HSTL(config).state_dict()
    assert own_shapes(config) == {name: tuple(value.shape) for name, value in expected.items()}


def test_own_names_must_be_complete(own: dict[str, torch.Tensor], tmp_path: Path) -> None:
    read = HSTL.from_official_checkpoint
    lacking = {name: value for name, value in own.items() if name != "strips.p"}
    with pytest.raises(ValueError, match=r"a\.pt: state_dict does not fit this HSTL model: missing strips\.p$"):
        read(saved(tmp_path / "a.pt", lacking))
    with pytest.raises(ValueError, match=r"unexpected head\.weight$"):
        read(saved(tmp_path / "a.pt", {**own, "head.weight": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"strips\.p must have the shape \[1\], got \[2\]$"):
        read(saved(tmp_path / "a.pt", {**own, "strips.p": torch.zeros(2)}))


class TestNetworks:
    """Of which network a file says what it is."""

    def test_a_custom_network_is_read_back(self, tmp_path: Path) -> None:
        tiny = tiny_model()
        training = {"classes": ["a", "b", "c"], "config": {"seed": 3, "data": {"path": "x"}}, "scaler": {"scale": 2.0}}
        save_checkpoint(tmp_path / "a.pt", tiny, training=training)
        found = load_checkpoint(tmp_path / "a.pt")
        assert found.model.config == TINY
        assert found.training == training
        assert differing(found.model, tiny) == []
        sentence = (
            r"a\.pt: holds the network of stem \[4\], splits \[\[40, 24\], \[20, 20, 24\]\] and 4 strips for 3 people"
        )
        with pytest.raises(ValueError, match=sentence + ", not casia-b$"):
            HSTL.from_official_checkpoint(tmp_path / "a.pt", "casia-b")

    def test_rows_are_told_by_the_file_alone(self, tmp_path: Path) -> None:
        config = PRESETS["casia-b"].with_splits([[2, 6], [2, 2, 2, 2]])
        model = HSTL(replace(config, num_classes=2))
        save_checkpoint(tmp_path / "a.pt", model)
        assert HSTL.from_official_checkpoint(tmp_path / "a.pt").config == model.config
        with pytest.raises(ValueError, match=r"splits \[\[16, 48\], \[16, 16, 16, 16\]\] .* not casia-b$"):
            HSTL.from_official_checkpoint(tmp_path / "a.pt", "casia-b")

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"colour": 3}, r"network must hold stem, stages, pool, strips, num_classes; got 'colour'"),
            ({"strip": 8}, r"network must hold stem, .*; got 'strip'; did you mean 'strips'"),
            ({"num_classes": 4}, r"its tensors are not those of the network that it describes: Head1\.fc_bin must"),
            ({"strips": 8}, r"its tensors are not those of the network that it describes: Head0\.fc_bin must"),
            ({"num_classes": 10**15}, r"its tensors are not those of the network that it describes"),
            ({"stem": "x"}, r"stem must be a list, got 'x'"),
        ],
    )
    @pytest.mark.parametrize("read", [HSTL.from_official_checkpoint, load_checkpoint])
    def test_what_a_file_says_must_be_true(self, read: Any, change: Any, sentence: str, tmp_path: Path) -> None:
        content = {"model": tiny_model().official_state_dict(), "network": {**TINY.to_dict(), **change}}
        with pytest.raises(ValueError, match=r"a\.pt: .*(" + sentence + ")"):
            read(saved(tmp_path / "a.pt", content))

    @pytest.mark.parametrize("value", [3, [1], "casia-b"])
    def test_a_network_without_fields_is_refused(self, value: object, tmp_path: Path) -> None:
        content = {"model": tiny_model().official_state_dict(), "network": value}
        with pytest.raises(ValueError, match=r"a\.pt: network must be fields by name, got "):
            HSTL.from_official_checkpoint(saved(tmp_path / "a.pt", content))

    @pytest.mark.parametrize("name", ["scheduler", "training"])
    def test_parts_of_the_wrong_kind_are_left_behind(self, name: str, tmp_path: Path) -> None:
        content = {"model": tiny_model().official_state_dict(), "network": TINY.to_dict(), name: 3}
        found = load_checkpoint(saved(tmp_path / "a.pt", content))
        assert found.not_carried == [f"{name}: must be a dict, got int"]
        assert getattr(found, name) is None


def safetensors(path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")


def page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><html></html>")


def whole_model(path: Path) -> None:
    torch.save(tiny_model(), path)


def whole_model_inside(path: Path) -> None:
    torch.save({"model": tiny_model(), "epoch": 3}, path)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(tiny_model()))


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def folder(path: Path) -> None:
    path.mkdir()


def sharded(path: Path) -> None:
    path.mkdir()
    (path / ".metadata").touch()


WAY_OUT = r"since that runs code; torch\.save\(\{'model': model\.state_dict\(\)\}, path\) where it was written"
CODE = r"a whole model, perhaps\), such as \S+; they are never loaded, " + WAY_OUT


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (safetensors, r"is a safetensors file; torch\.save\(safetensors\.torch\.load_file\(path\), other\)"),
        (pointer, r"is a Git LFS pointer; git lfs pull fetches the file itself$"),
        (page, r"is a web page, not the file that it links to$"),
        (whole_model, CODE),
        (whole_model_inside, CODE),
        (pickled, r"is a pickle that torch\.save did not write; it is never loaded, " + WAY_OUT),
        (script, r"is a TorchScript archive; torch\.save\(torch\.jit\.load\(path\)\.state_dict\(\), other\)"),
        (folder, r"expected a checkpoint's file, got a folder$"),
        (
            sharded,
            r"is the folder of a distributed checkpoint; .*dcp_to_torch_save\(folder, path\) makes a file of it$",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_sentence_says_what_to_do(write: Any, sentence: str, tmp_path: Path) -> None:
    write(tmp_path / "a.pt")
    with pytest.raises((ValueError, IsADirectoryError), match=rf"a\.pt: .*{sentence}"):
        load_checkpoint(tmp_path / "a.pt")


def test_loading_into_a_model_is_strict_and_names_the_prefix() -> None:
    tiny = tiny_model()
    with pytest.raises(ValueError, match=r"missing .*unexpected .*; take the prefix 'module\.' off the names$"):
        tiny.load_official_state_dict(prefixed(tiny.official_state_dict(), "module."))
