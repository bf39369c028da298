"""Tiny segmentation models in ONNX format, in the forms that real ones have; each finds the pixels of green clothes.

`python -m tests.helpers.segmenter_models` writes them to tests/data/segmenters; it needs the package `onnx`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "data" / "segmenters"
# Green clothes (blue, green, red), and the share of 255 by which green stands out from the mean of the other two in a
# pixel that is half clothes and half wall.
GREEN, EDGE = (30, 215, 40), 0.32
# Logits per share of 255.
STEEPNESS = 40.0
OPSET, IR_VERSION = 17, 8
# Sizes of the pictures, (rows, columns), where a model fixes them.
SIZE, SMALL = (240, 320), (192, 256)
OPEN = ("rows", "columns")

Shape = Sequence[int | str]


def build() -> dict[str, Any]:
    """Build all models by the names of their files."""
    unit, half = {"scale": "255"}, {"mean": "0.5", "std": "0.5"}
    names = {"task": "segment", "stride": "32", "names": "{0: 'bicycle', 1: 'person'}"}
    models = {
        "unsaid_logits": _model([_logit("y")], nchw(SIZE), {"y": nchw(SIZE, 1)}),
        "open_sizes": _model([_logit("z", std=0.5), _sigmoid("z", "y")], nchw(OPEN), {"y": nchw(OPEN, 1)}, half),
        "two_classes": _model(
            [_logit("z", classes=2), _node("Softmax", "z", "y", axis=1)], nchw(SMALL), {"y": nchw(SMALL, 2)}, unit
        ),
        "nhwc": _model(
            [_turned("x", "t", 0, 3, 1, 2), _logit("z", "t"), _turned("z", "u", 0, 2, 3, 1), _sigmoid("u", "y")],
            [1, *SIZE, 3],
            {"y": [1, *SIZE, 1]},
            unit,
        ),
        "nhwc_two_classes": _model(
            [_turned("x", "t", 0, 3, 1, 2), _logit("z", "t", classes=2), _turned("z", "y", 0, 2, 3, 1)],
            [1, *SMALL, 3],
            {"y": [1, *SMALL, 2]},
            unit,
        ),
        "voc": _model(
            [_logit("z", classes=21, person=15), _node("AveragePool", "z", "y", kernel_shape=[2, 2], strides=[2, 2])],
            nchw(OPEN),
            {"y": ["batch", 21, "half rows", "half columns"]},
            unit,
        ),
        "nineteen_classes": _model([_logit("y", classes=19, person=11)], nchw(SMALL), {"y": nchw(SMALL, 19)}, unit),
        "half_precision": _model(
            [_logit("z", dtype=np.float16), _sigmoid("z", "y")], nchw(SMALL), {"y": nchw(SMALL, 1)}, unit, np.float16
        ),
        "bytes": _model(
            [_node("Cast", "x", "t", to=1), _logit("y", "t", std=1 / 255)],
            nchw(SMALL),
            {"y": nchw(SMALL, 1)},
            {"values": "logits"},
            np.uint8,
        ),
        "labels": _model(
            [_logit("z", classes=2), _node("ArgMax", "z", "y", axis=1, keepdims=0)],
            nchw(OPEN),
            {"y": [1, *OPEN]},
            unit,
            outputs_of=np.int64,
        ),
        "side_outputs": _model(
            [_logit("z"), _sigmoid("z", "y"), _node("Mul", ["y", "y"], "side")],
            nchw(SIZE),
            {"y": nchw(SIZE, 1), "side": nchw(SIZE, 1)},
            unit,
        ),
        "two_masks": _model(
            [_logit("z", classes=2), _logit("y")], nchw(SIZE), {"z": nchw(SIZE, 2), "y": nchw(SIZE, 1)}, unit
        ),
        "instances": _instances(finished=False, metadata=names),
        "instances_finished": _instances(finished=True, metadata=names),
        "instances_of_any_size": _model(
            [
                *[_logit("z", classes=2, person=0, other=-1.0), _node("Identity", "z", "prototypes")],
                *[_node("ReduceMin", "x", "least", keepdims=0), _node("Mul", ["least", "nothing"], "zero")],
                _added("zero", np.zeros((1, 8, 30), np.float32), "detections"),
            ],
            nchw(OPEN),
            {"detections": [1, 8, 30], "prototypes": nchw(OPEN, 2)},
            {**names, "imgsz": "[96, 160]"},
            constants={"nothing": np.zeros((), np.float32)},
        ),
        "detector": _instances(finished=False, metadata={**names, "task": "detect"}),
    }
    return {**models, **_unusable(unit)}


def _unusable(unit: dict[str, str]) -> dict[str, Any]:
    pooled = [_node("GlobalAveragePool", "x", "z"), _node("Flatten", "z", "y")]
    states = [_logit("z"), _node("Add", ["z", "state"], "y")]
    return {
        "recurrent": _model(states, nchw(SMALL), {"y": nchw(SMALL, 1)}, unit, state=nchw(SMALL, 1)),
        "classifier": _model(pooled, nchw(SMALL), {"y": [1, 3]}, unit),
        "flat": _model([_node("Sigmoid", "x", "y")], [1, 3], {"y": [1, 3]}, unit),
        "two_pictures": _model([_logit("y")], [2, 3, *SMALL], {"y": [2, 1, *SMALL]}, unit),
        "four_channels": _model([_node("Sigmoid", "x", "y")], [1, 4, *SMALL], {"y": [1, 4, *SMALL]}, unit),
        "doubles": _model([_node("Sigmoid", "x", "y")], nchw(SMALL), {"y": nchw(SMALL)}, unit, np.float64, np.float64),
        "no_layout": _model([_logit("y")], [1, "a", "b", "c"], {"y": [1, "d", "e", "f"]}, unit),
        "one_size": _model(
            [_logit("z"), _added("z", np.zeros((1, 1, 64, 1), np.float32), "y")],
            nchw(OPEN),
            {"y": [1, 1, 64, "columns"]},
            unit,
        ),
        "not_finite": _model([_logit("z"), _node("Log", "z", "y")], nchw(SMALL), {"y": nchw(SMALL, 1)}, unit),
        "bad_metadata": _model([_logit("y")], nchw(SMALL), {"y": nchw(SMALL, 1)}, {"mean": "none"}),
    }


def nchw(size: Sequence[int | str], channels: int = 3) -> list[int | str]:
    return [1, channels, *size]


def _instances(finished: bool, metadata: dict[str, str]) -> Any:
    """Two prototypes: green, and its opposite; detections of a person in either half, of nobody, and of a bicycle."""
    rows, columns = 128, 160
    middle, whole = columns / 2, rows
    # Corners, scores of bicycle and person, coefficients of the prototypes.
    found = [
        ((0, 0, middle, whole), (0.1, 0.9), (1, 0)),
        ((middle, 0, columns, whole), (0.2, 0.8), (0, -1)),
        ((middle + 1, 0, columns, whole), (0.2, 0.7), (0, 1)),
        ((0, 0, columns, whole), (0.1, 0.1), (0, 1)),
        ((0, 0, columns, whole), (0.9, 0.3), (0, 1)),
    ]
    if finished:
        lines = [[*box, max(scores), scores[1] > scores[0], *c] for box, scores, c in found if c != (0, 1)]
        table = np.array([lines + [[0, 0, columns, whole, 0.9, 0, 0, 1]] + [[0] * 8] * 20], np.float32)
    else:
        lines = [[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1], *s, *c] for b, s, c in found]
        table = np.array([lines + [[0] * 8] * 20], np.float32).transpose(0, 2, 1)
    halved = _node("AveragePool", "z", "prototypes", kernel_shape=[2, 2], strides=[2, 2])
    nodes = [_logit("z", classes=2, person=0, other=-1.0), halved, _added("zero", table, "detections")]
    nodes.insert(0, _node("ReduceMin", "x", "least", keepdims=0))
    nodes.insert(1, _node("Mul", ["least", "nothing"], "zero"))
    outputs = {"detections": list(table.shape), "prototypes": [1, 2, rows // 2, columns // 2]}
    return _model(nodes, nchw((rows, columns)), outputs, metadata, constants={"nothing": np.zeros((), np.float32)})


class _Node:
    """A node, and the constants it takes."""

    def __init__(self, proto: Any, constants: dict[str, Any] | None = None) -> None:
        self.proto, self.constants = proto, constants or {}


def _node(kind: str, inputs: str | list[str], output: str, **attributes: Any) -> _Node:
    from onnx import helper

    return _Node(helper.make_node(kind, [inputs] if isinstance(inputs, str) else inputs, [output], **attributes))


def _turned(source: str, output: str, *axes: int) -> _Node:
    return _node("Transpose", source, output, perm=list(axes))


def _sigmoid(source: str, output: str) -> _Node:
    return _node("Sigmoid", source, output)


def _added(source: str, constant: Any, output: str) -> _Node:
    node = _node("Add", [source, f"{output} constant"], output)
    return _Node(node.proto, {f"{output} constant": constant})


def _logit(
    output: str,
    source: str = "x",
    *,
    classes: int = 1,
    person: int | None = None,
    other: float = 0.0,
    std: float = 1.0,
    dtype: Any = np.float32,
) -> _Node:
    """A convolution that gives the logit of green in one channel, `other` times it in the others."""
    green = STEEPNESS * std * np.array([-0.5, 1.0, -0.5])
    person = classes - 1 if person is None else person
    weights = np.repeat(other * green[None], classes, axis=0)
    biases = np.full(classes, -other * EDGE * STEEPNESS)
    weights[person], biases[person] = green, -EDGE * STEEPNESS
    node = _node("Conv", [source, f"{output} weights", f"{output} biases"], output, kernel_shape=[1, 1])
    constants = {f"{output} weights": weights[:, :, None, None].astype(dtype), f"{output} biases": biases.astype(dtype)}
    return _Node(node.proto, constants)


def _model(
    nodes: list[_Node],
    shape: Shape,
    outputs: dict[str, Shape],
    metadata: dict[str, str] | None = None,
    dtype: Any = np.float32,
    outputs_of: Any = None,
    *,
    state: Shape | None = None,
    constants: dict[str, Any] | None = None,
) -> Any:
    from onnx import helper, numpy_helper

    def info(name: str, dims: Shape, of: Any) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(of)), list(dims))

    values = dict(constants or {})
    for node in nodes:
        values.update(node.constants)
    given = [info("x", shape, dtype)] + ([info("state", state, dtype)] if state is not None else [])
    results = outputs_of or (np.float32 if dtype is np.uint8 else dtype)
    graph = helper.make_graph(
        [node.proto for node in nodes],
        "green",
        given,
        [info(name, dims, results) for name, dims in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "hstl_fast tests"
    helper.set_model_props(model, metadata or {})
    return model


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, model in build().items():
        (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
