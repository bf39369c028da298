"""People found by a segmentation model in ONNX format, run by ONNX Runtime on the CPU.

Any model is taken that maps one picture to one mask and keeps no state: input `[1, 3, H, W]` or `[1, H, W, 3]` of
float32, float16 or bytes, of fixed or open size; output of one channel (probabilities or logits), of class channels,
of labels, or detections with prototypes as models of Ultralytics have them. Shapes, types and layouts are read from
the file; what it does not say is an option (see `onnx_options`), and what is ambiguous is asked for.

The interfaces of these models were considered, as their authors describe them: MODNet (`?mean=0.5&std=0.5`), U2-Net
for people and DeepLabV3 of torchvision (`?mean=0.485,0.456,0.406&std=0.229,0.224,0.225`), PP-HumanSeg
(`?mean=0.5&std=0.5`; `&class=1` where the export ends in labels), MediaPipe's selfie segmentation (`?scale=255`),
SegFormer (as DeepLabV3; `&class=` by its data set), YOLOv8-seg, YOLO11-seg and YOLO26-seg (no option). None of them was
run: only small models of the same forms. Robust Video Matting is recurrent, and is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.contents import describe
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of, short
from hstl_fast.silhouettes.extras import onnxruntime, opencv
from hstl_fast.silhouettes.video.foreground import Foreground
from hstl_fast.silhouettes.video.onnx_options import LARGEST_SIZE, ModelOptions, options_in
from hstl_fast.silhouettes.video.onnx_outputs import Trial, decoder_for, is_ultralytics, trained_size

Picture = NDArray[np.uint8]
Size = tuple[int, int]
# Types of the input, by their names in ONNX Runtime.
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
# Open sizes are rounded to multiples of this, since networks halve pictures up to five times.
MULTIPLE = 32
# Size of the trial picture where the file leaves the size open.
TRIAL_SIZE = (256, 256)
# The grey of borders that keep a frame's proportions.
BORDER = 114


class ModelInput(NamedTuple):
    """The input of a model.

    Attributes:
        name: Its name.
        layout: `nchw` or `nhwc`.
        rows: Rows, or None where they are open.
        columns: Columns, or None where they are open.
        dtype: Type of its values.
    """

    name: str
    layout: str
    rows: int | None
    columns: int | None
    dtype: Any

    def size_for(self, rows: int, columns: int) -> Size:
        """Choose rows and columns of the input for a frame."""
        if self.rows is not None and self.columns is not None:
            return self.rows, self.columns
        if self.rows is not None:
            return self.rows, _rounded(columns * self.rows / rows)
        if self.columns is not None:
            return _rounded(rows * self.columns / columns), self.columns
        return _rounded(rows), _rounded(columns)


class OnnxSegmenter:
    """A segmentation model; see the module.

    Args:
        path: The model's file.
        options: How the model is used, where its file does not say it.

    Attributes:
        name: `onnx:` and the name of the file.
        learns: False: every frame is segmented by itself.
        camera_may_move: True.
        source: The file, for errors.

    Raises:
        SilhouetteError: The file is missing or is no ONNX model, the model has another interface, does not run on a
            trial picture, or an option is missing or does not fit.
        ImportError: ONNX Runtime or OpenCV is missing; both come with the extra `[segmenter]`.
    """

    learns = False
    camera_may_move = True

    def __init__(self, path: Path, options: ModelOptions | None = None) -> None:
        self.name, self.source = f"onnx:{path.name}", str(path)
        self._session = _session(path)
        metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        said = (options or ModelOptions()).completed(options_in(metadata, self.source))
        if is_ultralytics(metadata):
            said = said.completed(ModelOptions(scale=255.0, letterbox=True))
        self._input = _read_input(self._session.get_inputs(), said, trained_size(metadata), self.source)
        self._letterbox, self._bgr = bool(said.letterbox), said.rgb is False
        self._tables = _tables(said, self._input.dtype, self.source)
        size = self._input.size_for(*TRIAL_SIZE)
        names = [output.name for output in self._session.get_outputs()]
        arrays = self._outputs(names, self._tensor(_trial_picture(size)))
        trial = Trial(self.source, size, self._input.layout, dict(zip(names, arrays, strict=True)), metadata)
        self._decode = decoder_for(trial, said)

    def foreground(self, frame: Picture) -> Foreground:
        """Compute the foreground of a frame.

        Args:
            frame: BGR `[H, W, 3]` uint8.

        Returns:
            A mask that is True where people are; no motion.

        Raises:
            SilhouetteError: The model fails, or gives values that are no mask.
        """
        size = self._input.size_for(*frame.shape[:2])
        fitted, place = _fit(frame, size, self._letterbox)
        people = self._decode(self._outputs(list(self._decode.outputs), self._tensor(fitted)))
        return Foreground(_mask(people, size, place, frame.shape[:2]), None)

    def input_for(self, frame: Picture) -> NDArray[Any]:
        """Compute the model's input for a frame, with the axis of the batch."""
        fitted, _ = _fit(frame, self._input.size_for(*frame.shape[:2]), self._letterbox)
        return self._tensor(fitted)

    def run(self, tensor: NDArray[Any]) -> list[NDArray[Any]]:
        """Run the model alone: the outputs that hold the mask, for an input that `input_for` gives."""
        return list(self._session.run(list(self._decode.outputs), {self._input.name: tensor}))

    def _outputs(self, names: list[str], tensor: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs for an input, without the axis of the batch."""
        try:
            arrays = self._session.run(names, {self._input.name: tensor})
        except Exception as error:
            rows, columns = tensor.shape[2:] if self._input.layout == "nchw" else tensor.shape[1:3]
            raise SilhouetteError(
                f"{self.source}: the model fails on a picture of {rows} x {columns} pixels ({_reason(error)}); an "
                "input of another size may be needed (option size)"
            ) from error
        arrays = [np.asarray(array) for array in arrays]
        return [array[0] if array.ndim >= 3 and array.shape[0] == 1 else array for array in arrays]

    def _tensor(self, picture: Picture) -> NDArray[Any]:
        """The input for a picture: its channels in order, normalised."""
        if not self._bgr:
            picture = picture[:, :, ::-1]
        if self._tables is None:
            nhwc = np.ascontiguousarray(picture)
            return nhwc[None] if self._input.layout == "nhwc" else np.ascontiguousarray(nhwc.transpose(2, 0, 1))[None]
        cv2 = opencv()
        planes = [cv2.LUT(np.ascontiguousarray(picture[:, :, c]), self._tables[c]) for c in range(3)]
        axis = 0 if self._input.layout == "nchw" else -1
        return np.stack(planes, axis=axis)[None].astype(self._input.dtype, copy=False)


def _session(path: Path) -> Any:
    runtime = onnxruntime()
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        raise SilhouetteError(f"{path}: expected an ONNX model, got {got}")
    import torch  # for its number of threads alone, which silhouettes need nowhere else

    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    # Threads that wait for the next frame leave the processor to the decoder and the tracker.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        kind = describe(path)
        got = kind if kind else f"a file that it does not open ({_reason(error)})"
        raise SilhouetteError(
            f"{path}: expected an ONNX model for ONNX Runtime {runtime.__version__}, got {got}"
        ) from error


def _reason(error: Exception) -> str:
    """The first sentence of an error of ONNX Runtime, without its number."""
    return reason_of(error).removeprefix("[ONNXRuntimeError] : ").rpartition(" : ")[2]


def _read_input(inputs: list[Any], options: ModelOptions, trained: Size | None, source: str) -> ModelInput:
    if len(inputs) != 1:
        names = ", ".join(short(one.name) for one in inputs) or "none"
        raise SilhouetteError(
            f"{source}: expected a model with one input, the picture, got {len(inputs)} ({names}); models that carry a "
            "state from frame to frame, such as Robust Video Matting, are not run"
        )
    shape = [dim if isinstance(dim, int) and dim > 0 else None for dim in inputs[0].shape]
    shown = f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"
    if len(shape) != 4 or shape[0] not in (1, None):
        raise SilhouetteError(f"{source}: expected an input of [1, 3, H, W] or [1, H, W, 3], got {shown}")
    if inputs[0].type not in TYPES:
        raise SilhouetteError(
            f"{source}: expected an input of float32, float16 or uint8, got {short(str(inputs[0].type))}"
        )
    layouts = [layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (3, None)]
    certain = [layout for layout, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] == 3]
    if options.layout is not None and options.layout in layouts:
        layout = options.layout
    elif not layouts or options.layout is not None:
        wanted = f" for the layout {options.layout}" if layouts else ""
        raise SilhouetteError(f"{source}: expected an input with an axis of 3 channels{wanted}, got {shown}")
    elif len(certain) != 1:
        raise SilhouetteError(
            f"{source} has an input of {shown} and does not say which axis has the channels; add the option "
            "layout=nchw or layout=nhwc"
        )
    else:
        layout = certain[0]
    rows, columns = shape[2:] if layout == "nchw" else shape[1:3]
    if options.size is not None:
        if rows not in (None, options.size[0]) or columns not in (None, options.size[1]):
            raise SilhouetteError(f"{source}: size: expected that of the input, {shown}, got {options.size}")
        rows, columns = options.size
    elif trained is not None and rows is None and columns is None:
        rows, columns = trained
    if max(rows or 0, columns or 0) > LARGEST_SIZE:
        got = f"{rows or '?'} x {columns or '?'}"
        raise SilhouetteError(f"{source}: expected an input of at most {LARGEST_SIZE} rows and columns, got {got}")
    return ModelInput(inputs[0].name, layout, rows, columns, TYPES[inputs[0].type])


def _tables(options: ModelOptions, dtype: Any, source: str) -> NDArray[np.float32] | None:
    """The input's value of every byte, `[3, 256]` by channel, or None where the input takes bytes."""
    if dtype is np.uint8:
        if options.normalises:
            raise SilhouetteError(f"{source}: expected no scale, mean or std, since its input takes bytes; got some")
        return None
    if not options.normalises:
        raise SilhouetteError(
            f"{source} does not say how its input is normalised; add an option: ?scale=255 for values from 0 to 1, "
            "?mean=0.5&std=0.5 for -1 to 1, ?mean=0.485,0.456,0.406&std=0.229,0.224,0.225 for those of ImageNet, "
            "?scale=1 for 0 to 255"
        )
    gains, offsets = options.normalisation()
    return np.asarray([gain * np.arange(256) + offset for gain, offset in zip(gains, offsets)], np.float32)


def _trial_picture(size: Size) -> Picture:
    """Noise with a black and a white part, in which nobody is."""
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture[: size[0] // 3] = 0
    picture[-(size[0] // 3) :] = 255
    return picture


def _fit(frame: Picture, size: Size, letterbox: bool) -> tuple[Picture, tuple[int, int, int, int]]:
    """The frame in the size of the input, and where it lies there: left, top, width and height."""
    cv2 = opencv()
    rows, columns = size
    if letterbox:
        scale = min(size[0] / frame.shape[0], size[1] / frame.shape[1])
        rows, columns = max(1, round(scale * frame.shape[0])), max(1, round(scale * frame.shape[1]))
    if (rows, columns) != frame.shape[:2]:
        shrinks = rows * columns < frame.shape[0] * frame.shape[1]
        frame = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if (rows, columns) == size:
        return frame, (0, 0, columns, rows)
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    below, right = size[0] - rows - top, size[1] - columns - left
    bordered = cv2.copyMakeBorder(frame, top, below, left, right, cv2.BORDER_CONSTANT, value=(BORDER,) * 3)
    return bordered, (left, top, columns, rows)


def _mask(people: NDArray[np.float32], size: Size, place: tuple[int, int, int, int], frame: Size) -> NDArray[np.bool_]:
    """The mask `[H, W]` of a frame that lies at a place of the input, from the map of the whole input."""
    left, top, width, height = place
    if people.shape == frame and (left, top, width, height) == (0, 0, frame[1], frame[0]):
        return np.asarray(people > 0)
    cv2 = opencv()
    right, down = people.shape[1] / size[1], people.shape[0] / size[0]
    across, along = right * width / frame[1], down * height / frame[0]
    # The middle of a pixel of the frame lies at the middle of its place in the map.
    matrix = np.array(
        [[across, 0, (0.5 * across - 0.5) + right * left], [0, along, (0.5 * along - 0.5) + down * top]], np.float64
    )
    interpolation = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    sized = cv2.warpAffine(people, matrix, frame[::-1], flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sized > 0)


def _rounded(length: float) -> int:
    return max(MULTIPLE, round(length / MULTIPLE) * MULTIPLE)
