"""Segmentation models of all forms find the same people; what they do not say is asked for."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
pytest.importorskip("onnxruntime")

from hstl_fast.silhouettes import SilhouetteError, open_segmenter
from hstl_fast.silhouettes.video import onnx_outputs, onnx_segmenter
from hstl_fast.silhouettes.video.onnx_options import ModelOptions
from hstl_fast.silhouettes.video.onnx_segmenter import OnnxSegmenter
from tests.helpers import segmenter_models
from tests.helpers.segmenter_models import FOLDER, GREEN, SIZE
from tests.silhouettes.video.scenes import Scene, walker

Mask = NDArray[np.bool_]


def text(name: str, options: str = "") -> str:
    return f"onnx:{FOLDER / name}.onnx" + (f"?{options}" if options else "")


@pytest.fixture(scope="module")
def scene() -> Scene:
    people = [walker(110, 200, 130, identity=4, colour=GREEN), walker(230, 230, 90, identity=6, colour=GREEN)]
    return Scene(people, 1, SIZE, noise=2.0)


@pytest.fixture(scope="module")
def frame(scene: Scene) -> NDArray[np.uint8]:
    return next(scene.frames())


@pytest.fixture(scope="module")
def truth(scene: Scene) -> Mask:
    return next(scene.masks())


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("unsaid_logits", "scale=255", 0.97),
        ("unsaid_logits", "mean=0&std=1", 0.97),
        ("unsaid_logits", "scale=255&values=logits&threshold=0.6", 0.97),
        ("open_sizes", "", 0.93),
        ("open_sizes", "size=240x320&letterbox=1&threshold=0.4", 0.97),
        ("two_classes", "", 0.93),
        ("two_classes", "class=1&threshold=0.5", 0.93),
        ("nhwc", "", 0.97),
        ("nhwc_two_classes", "", 0.93),
        ("nhwc_two_classes", "threshold=0.5", 0.93),
        ("voc", "", 0.85),
        ("voc", "letterbox=1", 0.85),
        ("nineteen_classes", "class=11", 0.93),
        ("nineteen_classes", "class=10-12,18", 0.8),
        ("half_precision", "", 0.93),
        ("bytes", "", 0.93),
        ("labels", "class=1", 0.93),
        ("side_outputs", "", 0.97),
        ("two_masks", "output=y", 0.97),
        ("two_masks", "output=z", 0.97),
        ("no_layout", "layout=nchw&size=240x320", 0.97),
        ("instances", "", 0.8),
        ("instances_finished", "", 0.8),
    ],
)
def test_every_form_finds_the_people(
    name: str, options: str, least: float, frame: NDArray[np.uint8], truth: Mask
) -> None:
    found = open_segmenter(text(name, options)).foreground(frame)
    assert found.motion is None
    assert found.mask.dtype == bool
    assert iou(found.mask, truth) > least


@pytest.mark.parametrize(("name", "error"), [("instances", 3), ("bytes", 1), ("voc", 1), ("open_sizes", 1)])
@pytest.mark.parametrize("letterbox", [0, 1])
def test_masks_lie_where_the_people_are_whatever_the_frame(name: str, error: int, letterbox: int) -> None:
    """A frame of another shape is fitted, and its mask comes back in place to half a pixel of the map."""
    for size in ((120, 300), (300, 121)):
        frame = np.full((*size, 3), 120, np.uint8)
        body = np.s_[size[0] // 2 : size[0] // 2 + 40, 70:100]
        frame[body] = GREEN
        mask = open_segmenter(text(name, f"letterbox={letterbox}")).foreground(frame).mask
        assert mask.shape == size
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        edges = np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1])
        np.testing.assert_allclose(edges, [size[0] // 2, size[0] // 2 + 40, 70, 100], atol=error)


def test_a_frame_keeps_its_proportions_between_grey_borders_or_is_stretched() -> None:
    frame = np.full((100, 400, 3), 255, np.uint8)
    boxed, stretched = (
        OnnxSegmenter(FOLDER / "two_classes.onnx", ModelOptions(letterbox=letterbox)).input_for(frame)
        for letterbox in (True, False)
    )
    assert boxed.shape == stretched.shape == (1, 3, 192, 256)
    np.testing.assert_array_equal(np.flatnonzero(boxed[0, 1, :, 128] == 1), np.arange(64, 128))
    np.testing.assert_array_equal(boxed[0, :, :64], np.float32(114 / 255))
    np.testing.assert_array_equal(stretched, 1)


def test_channels_come_in_the_order_that_is_said() -> None:
    """A model that hardly minds its first channel calls blue and green green where that channel is blue."""
    frame = np.full((*SIZE, 3), (200, 150, 0), np.uint8)
    for rgb, green in ((0, True), (1, False)):
        mask = open_segmenter(text("unsaid_logits", f"std=4,1,1&rgb={rgb}")).foreground(frame).mask
        assert mask.all() == mask.any() == green


def test_detections_are_people_once_and_inside_their_boxes(frame: NDArray[np.uint8]) -> None:
    """The second prototype is the opposite of the people; a detection that another one covers adds nothing."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 6]], np.float32)
    assert onnx_outputs._best_of(boxes, np.array([0.5, 0.9, 0.3, 0.8], np.float32)) == [1, 3, 2]
    everything = open_segmenter(text("instances", "class=0&threshold=0.5")).foreground(frame).mask
    people = open_segmenter(text("instances")).foreground(frame).mask
    assert iou(everything, ~people) > 0.9
    left_only = open_segmenter(text("instances", "threshold=0.85")).foreground(frame).mask
    assert not left_only[:, 165:].any()
    np.testing.assert_array_equal(left_only[:, :155], people[:, :155])


def test_models_of_open_size_run_at_the_size_they_were_trained_on(frame: NDArray[np.uint8]) -> None:
    name = "instances_of_any_size"
    assert OnnxSegmenter(FOLDER / f"{name}.onnx").input_for(frame).shape == (1, 3, 96, 160)
    sized = open_segmenter(text(name, "size=64x64"))
    assert isinstance(sized, OnnxSegmenter)
    assert sized.input_for(frame).shape == (1, 3, 64, 64)
    assert not sized.foreground(frame).mask.any()


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_a_threshold_is_a_probability_whatever_the_output_holds(threshold: float) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (24, 32)).astype(np.float32)
    truth = 1 / (1 + np.exp(-logits.astype(np.float64))) > threshold
    classes = np.stack([np.zeros_like(logits), logits])
    shares = np.exp(classes) / np.exp(classes).sum(axis=0)
    forms = {"logits": logits, "probabilities": shares[1], "classes": classes, "shares": shares}
    for name, array in forms.items():
        trial = onnx_outputs.Trial("model", (24, 32), "nchw", {name: array}, {})
        found = onnx_outputs.decoder_for(trial, ModelOptions(threshold=threshold))([array]) > 0
        np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize(("layout", "axis"), [("nchw", 0), ("nhwc", 2)])
def test_the_layout_of_the_input_decides_where_both_would_do(layout: str, axis: int) -> None:
    array = np.zeros((24, 24, 24), np.float32)
    trial = onnx_outputs.Trial("model", (24, 24), layout, {"y": array}, {})
    decoder = onnx_outputs.decoder_for(trial, ModelOptions(classes=(3,)))
    np.moveaxis(array, axis, 0)[3, 5, 7] = 1
    assert np.argwhere(decoder([array]) > 0).tolist() == [[5, 7]]


def test_what_is_said_beside_the_file_goes_first_and_normalisations_are_not_mixed() -> None:
    said = ModelOptions(scale=255.0, rgb=False).completed(ModelOptions(mean=(0.5,) * 3, rgb=True, letterbox=True))
    assert said == ModelOptions(scale=255.0, rgb=False, letterbox=True)
    assert said.normalisation() == ((1 / 255,) * 3, (0.0,) * 3)


def test_the_same_frame_gives_the_same_mask(frame: NDArray[np.uint8]) -> None:
    model = open_segmenter(text("voc"))
    first = model.foreground(frame).mask
    model.foreground(frame[:100, :200])
    np.testing.assert_array_equal(model.foreground(frame).mask, first)
    assert (model.name, model.learns, model.camera_may_move) == ("onnx:voc.onnx", False, True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "unsaid_logits",
            "",
            r"does not say how its input is normalised; add an option: \?scale=255 .*\?mean=0.5&",
        ),
        ("labels", "", r"labels \(int64\) and does not say which is a person; add an option, such as \?class=1"),
        ("nineteen_classes", "", "19 class channels and does not say which is a person"),
        ("nineteen_classes", "class=19", "class: expected at most 18, since it has 19 class channels, got 19"),
        ("nineteen_classes", "class=0-18", "class: expected fewer than all 19 class channels, got all"),
        ("nhwc", "class=1", "class: expected at most 0, since it has one channel, got 1"),
        ("instances", "class=2", "class: expected at most 1, since it has 2 classes, got 2"),
        ("two_masks", "", r"several outputs that may hold the mask: z \[2, 240, 320\], y .* option output=NAME"),
        ("two_masks", "output=x", "output: expected one of z, y, got 'x'"),
        (
            "no_layout",
            "",
            r"input of \[1, \?, \?, \?\] and does not say which axis has the channels; add the option",
        ),
        ("two_classes", "layout=nhwc", r"axis of 3 channels for the layout nhwc, got \[1, 3, 192, 256\]"),
        ("two_classes", "size=64x64", r"size: expected that of the input, \[1, 3, 192, 256\], got \(64, 64\)"),
        ("one_size", "", r"fails on a picture of 256 x 256 pixels \(Non-zero status .*\(option size\)"),
        ("recurrent", "", r"one input, the picture, got 2 \(x, state\); models that carry a state .* are not run"),
        ("classifier", "", r"expected an output that is a mask, such as \[1, 1, 192, 256\], got y \[1, 3\]"),
        ("flat", "", r"expected an input of \[1, 3, H, W\] or \[1, H, W, 3\], got \[1, 3\]"),
        ("two_pictures", "", r"expected an input of \[1, 3, H, W\] or \[1, H, W, 3\], got \[2, 3, 192, 256\]"),
        ("four_channels", "", r"expected an input with an axis of 3 channels, got \[1, 4, 192, 256\]"),
        ("doubles", "", r"expected an input of float32, float16 or uint8, got tensor\(double\)"),
        ("not_finite", "", "expected finite values as output, got infinity or NaN"),
        ("bad_metadata", "", "metadata: mean: expected one number, or three separated by commas, got 'none'"),
        ("bytes", "mean=0.5", "expected no scale, mean or std, since its input takes bytes"),
        ("detector", "", "expected a model that segments, got one for the task detect"),
        ("nowhere", "", "expected an ONNX model, got nothing there"),
    ],
)
def test_what_does_not_fit_is_said(name: str, options: str, message: str) -> None:
    with pytest.raises(SilhouetteError, match=message) as raised:
        open_segmenter(text(name, options))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("classes=1", "expected options among class, mean, std, .*, got 'classes=1'"),
        ("class=1&class=2", "expected the option class once, got it twice"),
        ("class=-1", "class: expected a class's number from 0 on, or several such as 1,2 or 1-5, got '-1'"),
        ("class=5-1", "class: expected"),
        ("mean=0.5,0.5", "mean: expected one number, or three separated by commas, got '0.5,0.5'"),
        ("std=0", "std: expected one positive number"),
        ("std=nan", "std: expected"),
        ("scale=inf", "scale: expected a positive number, got 'inf'"),
        ("rgb=yes", "rgb: expected 1 .* or 0"),
        ("size=64", "size: expected rows and columns from 8 to 8192, such as 384x512, got '64'"),
        ("layout=chw", "layout: expected nchw or nhwc, got 'chw'"),
        ("values=softmax", "values: expected probabilities or logits, got 'softmax'"),
        ("threshold=1", "threshold: expected a number between 0 and 1, got '1'"),
        ("output=", "output: expected the name of an output"),
    ],
)
def test_options_without_a_possible_value_are_said(options: str, message: str) -> None:
    with pytest.raises(SilhouetteError, match=message):
        open_segmenter(text("two_classes", options))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foreground", r"segmenter: expected background or onnx:MODEL.onnx, got 'foreground'"),
        ("model.onnx?rgb=0", "got 'model.onnx.rgb=0'; for a model: onnx:model.onnx.rgb=0"),
        ("onnx:", "expected the file of a model behind onnx:, got nothing"),
        ("onnx:/", "expected an ONNX model, got a folder"),
    ],
)
def test_unknown_segmenters_are_named(name: str, message: str) -> None:
    with pytest.raises(SilhouetteError, match=message):
        open_segmenter(name)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"", "an empty file"),
        (b"\0" * 40, "a file"),
    ],
)
def test_files_that_are_no_model_are_described(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(SilhouetteError, match=f"expected an ONNX model for ONNX Runtime [0-9.]+, got {kind}"):
        open_segmenter(f"onnx:{tmp_path / 'model.onnx'}")


def test_a_model_that_is_cut_short_is_described(tmp_path: Path) -> None:
    whole = (FOLDER / "two_classes.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[:-40])
    with pytest.raises(SilhouetteError, match=r"cut.onnx: expected an ONNX model for ONNX Runtime"):
        open_segmenter(f"onnx:{tmp_path / 'cut.onnx'}")


def test_logits_that_were_taken_for_probabilities_are_noticed() -> None:
    model = open_segmenter(text("unsaid_logits", "scale=255&values=probabilities"))
    with pytest.raises(SilhouetteError, match=r"probabilities from 0 to 1, got values from .*option values=logits"):
        model.foreground(np.full((*SIZE, 3), GREEN, np.uint8))


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"need ONNX Runtime.*pip install 'hstl_fast\[segmenter\]'"):
        open_segmenter(text("bytes"))


def test_models_run_on_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert OnnxSegmenter(FOLDER / "bytes.onnx")._session.get_session_options().intra_op_num_threads == 3


def committed() -> Iterator[str]:
    yield from sorted(path.stem for path in FOLDER.glob("*.onnx"))


def test_the_models_are_those_that_the_script_builds() -> None:
    onnx = pytest.importorskip("onnx")
    built = segmenter_models.build()
    assert sorted(built) == list(committed())
    for name, model in built.items():
        assert onnx.load(FOLDER / f"{name}.onnx") == model


@pytest.mark.parametrize(("shape", "trained"), [([1, 3, 60000, 60000], None), ([1, 3, "h", "w"], (99999, 99999))])
def test_an_input_that_no_memory_holds_is_refused(shape: list[int | str], trained: tuple[int, int] | None) -> None:
    given = [SimpleNamespace(name="x", shape=shape, type="tensor(float)")]
    with pytest.raises(SilhouetteError, match=r"at most 8192 rows and columns, got (60000|99999) x (60000|99999)"):
        onnx_segmenter._read_input(given, ModelOptions(), trained, "model.onnx")
