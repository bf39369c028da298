"""ONNX files: what is in them, that other runtimes compute the same from them, and what cannot be written."""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import HSTL, HSTLConfig, export
from hstl_fast.export import export_onnx
from hstl_fast.models import Stage
from tests.helpers.networks import narrow_model, walkers

LENGTHS = [1, 2, 3, 4, 5, 7, 30, 57]


def smallest() -> HSTL:
    """An untrained network with every kind of layer and hardly any channels, its batch norm not neutral, in training
    mode."""
    torch.manual_seed(0)
    model = HSTL(HSTLConfig((2,), (Stage((32,), (3,)), Stage((20, 12), (4,))), pool=True, strips=2, num_classes=3))
    nn.init.normal_(model.norm.running_mean, std=0.05)
    nn.init.uniform_(model.norm.running_var, 0.9, 1.1)
    return model


def clips(n: int, t: int) -> Tensor:
    return torch.stack([walkers(t, seed) for seed in range(n)])


def written(model: HSTL, folder: Path, frames: int | None = None) -> Path:
    """The model's file, or a skipped test where the packages for it are not installed."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra [onnx])")
    path = folder / "model.onnx"
    export_onnx(model, path, frames)
    return path


class Runtime:
    """ONNX Runtime with one file."""

    def __init__(self, path: Path) -> None:
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra [peers])")
        self.session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __call__(self, silhouettes: Tensor) -> Tensor:
        (embeddings,) = self.session.run(["embeddings"], {"silhouettes": silhouettes.numpy()})
        return torch.from_numpy(embeddings)


def assert_close(found: Tensor, model: HSTL, silhouettes: Tensor) -> None:
    """Within float32's rounding of what the model gives, which is not all the same."""
    expected = model.embed(list(silhouettes))
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert expected.std() > 0.01 * expected.abs().max()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.fixture(scope="module")
def of_any_length(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(smallest(), tmp_path_factory.mktemp("onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("n", [1, 3])
def test_any_number_of_sequences_and_frames(n: int, t: int, of_any_length: Path) -> None:
    assert_close(Runtime(of_any_length)(clips(n, t)), smallest(), clips(n, t))


@pytest.mark.slow
def test_openvino_computes_the_same(of_any_length: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed (extra [peers])")
    compiled = openvino.Core().compile_model(of_any_length, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for n, t in ((1, 1), (3, 2), (2, 7)):
        assert_close(torch.from_numpy(compiled(clips(n, t).numpy())[0]), smallest(), clips(n, t))


@pytest.mark.slow
def test_the_file_says_what_it_is(of_any_length: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(of_any_length)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", export.OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    sizes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert sizes == {"silhouettes": ["n", "frames", 64, 44], "embeddings": ["n", smallest().config.parts, 4]}
    assert {entry.key for entry in model.metadata_props} == {"silhouettes", "embeddings", "frames"}
    content = of_any_length.read_bytes()
    assert str(Path(__file__).parents[1]).encode() not in content
    assert b"classifier" not in content


@pytest.mark.slow
def test_one_number_of_frames_alone(tmp_path: Path) -> None:
    model = smallest()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = written(model, tmp_path, frames=2)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert list(tmp_path.iterdir()) == [path]
    runtime = Runtime(path)
    assert_close(runtime(clips(3, 2)), model, clips(3, 2))
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        runtime(clips(1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["casia-b", "oumvlp"])
def test_presets(preset: str, tmp_path: Path) -> None:
    model = narrow_model(preset, divisor=8)
    runtime = Runtime(written(model, tmp_path))
    for t in LENGTHS:
        for n in (1, 3):
            assert_close(runtime(clips(n, t)), model, clips(n, t))


@pytest.mark.slow
def test_a_whole_preset(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = HSTL.from_preset("gait3d", num_classes=5)
    runtime = Runtime(written(model, tmp_path))
    for n, t in [*((1, t) for t in LENGTHS), (2, 30)]:
        assert_close(runtime(clips(n, t)), model, clips(n, t))


def never(*_: Any) -> None:
    raise AssertionError("the work began")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused is refused before the network is traced."""
    monkeypatch.setattr(export, "_traced", never)
    monkeypatch.setattr(export, "_check_packages", lambda: None)


@pytest.mark.parametrize(
    ("model", "frames", "error", "message"),
    [
        (nn.Linear(1, 1), None, TypeError, "model must be an HSTL, got Linear"),
        (
            smallest().double(),
            None,
            TypeError,
            "model must be float32 to be written as ONNX, got torch.float64 in stem",
        ),
        (smallest().bfloat16(), None, TypeError, r"got torch.bfloat16 in .*; give copy.deepcopy\(model\).float\(\)"),
        (smallest().to("meta"), None, ValueError, "model must have numbers to write, but stem.* is on the meta device"),
        (smallest(), 0, ValueError, r"frames must be None \(any number\) or a positive integer, got 0"),
        (smallest(), "30", ValueError, "frames must be None .* got '30'"),
        (smallest(), True, ValueError, "frames must be None .* got True"),
    ],
)
def test_what_cannot_be_written(
    model: Any, frames: Any, error: type[Exception], message: str, tmp_path: Path, no_work: None
) -> None:
    with pytest.raises(error, match=message):
        export_onnx(model, tmp_path / "model.onnx", frames)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path: Path, no_work: None) -> None:
    with pytest.raises(IsADirectoryError, match="expected a file to write, got a folder"):
        export_onnx(smallest(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"missing/model\.onnx: its folder does not exist"):
        export_onnx(smallest(), tmp_path / "missing" / "model.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        export_onnx(smallest(), tmp_path / "file" / "model.onnx")


def test_a_path_is_text_or_a_path(no_work: None) -> None:
    with pytest.raises(TypeError, match=r"path must be a str or an os\.PathLike, got int"):
        export_onnx(smallest(), 3)  # type: ignore[arg-type]


def test_what_fails_midway_leaves_the_old_file(tmp_path: Path, no_work: None) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed (extra [onnx])")
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(AssertionError, match="the work began"):
        export_onnx(smallest(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_packages_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    message = r"export_onnx needs (onnx and )?onnxscript: pip install 'hstl_fast\[onnx\]'"
    with pytest.raises(ImportError, match=message):
        export_onnx(smallest(), tmp_path / "model.onnx")


def test_copies_of_embedders_share_nothing() -> None:
    model = smallest()
    embedder = export.Embedder(model)
    assert next(embedder.parameters()) is next(model.parameters())
    assert next(copy.deepcopy(embedder).parameters()) is not next(model.parameters())
    assert set(model.state_dict()) - {"classifier.weight"} == {
        name.removeprefix("body.") for name in embedder.state_dict()
    }
