"""Export for other compilers and runtimes: a module that computes embeddings, and files in the ONNX format."""

import copy
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hstl_fast._torch_private import children_of, with_children
from hstl_fast.files import atomic_file
from hstl_fast.models import HSTL
from hstl_fast.models.config import COLUMNS, FEWEST_FRAMES, ROWS
from hstl_fast.models.inputs import check_silhouettes
from hstl_fast.nn import Layer
from hstl_fast.ops._checks import Lengths
from hstl_fast.ops._dispatch import use_algorithm, use_backend
from hstl_fast.version import __version__

# The ONNX operator set of the files. ONNX Runtime 1.14, OpenVINO 2023 and everything newer can read it.
OPSET = 18
# The length of the example for a graph of any length: two windows of FTA, as one would be taken for a constant.
TRACED_FRAMES = 7

# A function in ONNX's own notation that repeats every sequence until it has 3 frames.
REPETITION = f"""
repetition (uint8[n, frames, 64, 44] silhouettes) => (uint8[n, enough, 64, 44] repeated)
{{
    given = Shape <start = 1, end = 2> (silhouettes)
    lacking = Constant <value = int64[1] {{{FEWEST_FRAMES - 1}}}> ()
    ceiling = Add (given, lacking)
    times = Div (ceiling, given)
    once = Constant <value = int64[1] {{1}}> ()
    repeats = Concat <axis = 0> (once, times, once, once)
    repeated = Tile (silhouettes, repeats)
}}
"""


class Embedder(Layer):
    """The part of an `HSTL` that is used after training: silhouettes to embeddings, without the classifier.

    `Embedder(model)(silhouettes, seq_lens)` equals `model.eval()(silhouettes, seq_lens).embeddings`, whatever mode
    either is in, with gradients. Parameters are shared with `model`; the classifier's are not among them, so that an
    embedder given to `torch.compile` or `torch.export.export` does not carry them.

    Args:
        model: The network.

    Raises:
        TypeError: `model` is not an `HSTL`.
    """

    def __init__(self, model: HSTL) -> None:
        super().__init__()
        if not isinstance(model, HSTL):
            raise TypeError(f"model must be an HSTL, got {type(model).__name__}")
        self.body = with_children(
            model, {name: child for name, child in children_of(model).items() if name != "classifier"}
        )

    def forward(self, silhouettes: Tensor, seq_lens: Lengths | None = None) -> Tensor:
        """Compute embeddings.

        Args:
            silhouettes: `[N, T, 64, 44]`, as for `HSTL.forward`.
            seq_lens: Lengths of packed sequences, as for `HSTL.forward`.

        Returns:
            Embeddings `[N, P, C]`.
        """
        silhouettes, lengths = check_silhouettes(silhouettes, seq_lens, self.body.check_input)
        return self.body._embeddings(silhouettes, lengths, batch_statistics=False)


def export_onnx(model: HSTL, path: str | os.PathLike[str], frames: int | None = None) -> None:
    """Write the network that computes embeddings in evaluation mode as one ONNX file, whole or not at all.

    The graph has one input, `silhouettes` uint8 `[n, frames, 64, 44]` (0..255, sequences of one length), and one
    output, `embeddings` float32 `[n, parts, c]`, both for any n. It holds only operators of the standard's set 18 and
    computes as the backend `reference` does. Exporting needs the packages onnx and onnxscript, and takes about a
    minute.

    Args:
        model: The network in float32, on any device; neither it nor its mode is changed.
        path: The file to write.
        frames: The length of the sequences that the graph takes. None is a graph for any length from one frame on:
            sequences of one or two frames are repeated as by the model.

    Raises:
        ImportError: A package is missing.
        TypeError: `model` is not an `HSTL` in float32, or `path` is no path.
        ValueError: `frames` is not a positive integer, or the model has no values (it is on the meta device).
        OSError: The file cannot be written.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or an os.PathLike, got {type(path).__name__}")
    path = Path(path)
    _check_packages()
    _check_model(model)
    if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 1):
        raise ValueError(f"frames must be None (any number) or a positive integer, got {frames!r}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, got a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: its folder does not exist")
    import onnx

    with atomic_file(path) as draft:
        graph = _traced(Embedder(model), frames)
        if frames is None:
            _repeat_short(graph.graph)
        _describe(graph, frames)
        onnx.checker.check_model(graph)
        onnx.save(graph, draft)


def _check_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"export_onnx needs {' and '.join(missing)}: pip install 'hstl_fast[onnx]'")


def _check_model(model: object) -> None:
    if not isinstance(model, HSTL):
        raise TypeError(f"model must be an HSTL, got {type(model).__name__}")
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise TypeError(
                f"model must be float32 to be written as ONNX, got {parameter.dtype} in {name}; "
                "give copy.deepcopy(model).float()"
            )
        if parameter.is_meta:
            raise ValueError(f"model must have numbers to write, but {name} is on the meta device")


def _traced(embedder: Embedder, frames: int | None) -> Any:
    """Return the embedder as an `onnx.ModelProto`; a graph of any length does not repeat short sequences yet."""
    network = copy.deepcopy(embedder).cpu().eval().requires_grad_(False)
    example = torch.zeros((2, TRACED_FRAMES if frames is None else frames, ROWS, COLUMNS), dtype=torch.uint8)
    sizes: dict[int, Any] = {0: torch.export.Dim("n", min=1)}
    if frames is None:
        sizes[1] = torch.export.Dim("frames", min=2 * FEWEST_FRAMES)  # a bound for the tracer, not for the graph
    with use_backend("reference"), use_algorithm("auto"), _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["silhouettes"],
            output_names=["embeddings"],
            dynamic_shapes=(sizes,),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's remarks on optional packages that it does not find, and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)


def _repeat_short(graph: Any) -> None:
    """Put a repetition of short sequences before `graph`: frame 0 becomes 0, 0, 0, and 0, 1 become 0, 1, 0, 1."""
    from onnx import parser

    for node in graph.node:
        node.input[:] = ["repeated" if name == "silhouettes" else name for name in node.input]
    before = parser.parse_graph(REPETITION).node
    after = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *after])


def _describe(model: Any, frames: int | None) -> None:
    """Describe the network in the file, and remove the tracer's metadata, which names source files."""
    from onnx import helper

    graph = model.graph
    graph.name = "HSTL"
    for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del entry.metadata_props[:]
    del graph.value_info[:]
    model.producer_name, model.producer_version = "hstl_fast", __version__
    model.doc_string = "HSTL gait recognition: silhouettes to one embedding per body part"
    helper.set_model_props(
        model,
        {
            "silhouettes": "uint8 [n, frames, 64, 44], 0 background to 255; n sequences of one length",
            "embeddings": "float32 [n, parts, c]",
            "frames": str(frames or "any from 1 on; sequences of 1 or 2 frames are repeated until they have 3"),
        },
    )
