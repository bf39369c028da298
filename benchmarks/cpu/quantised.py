"""The exported network in int8: NNCF's and ONNX Runtime's quantisation after training, each with its defaults.

The ranges of the feature maps are calibrated on silhouettes of people and of walkers that no workload measures.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core import silhouettes
from hstl_fast.silhouettes import walkers

# Batches of each source that the ranges are calibrated on.
BATCHES = 8
# Workloads take the walks before this one, and walkers with lower numbers.
FIRST_WALK, FIRST_WALKER = 4, 1000


def calibration(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Silhouettes of this shape `[n, t, 64, 44]`, of people and of walkers in turn."""
    n, frames = shape[:2]
    for batch in range(BATCHES):
        clips = range(batch * n, (batch + 1) * n)
        yield np.stack([silhouettes.clip(FIRST_WALK + i % 2, i // 2 * frames, frames).numpy() for i in clips])
        yield np.stack([walkers.render(FIRST_WALKER + i, frames=frames)[:, :, 10:-10] for i in clips])


def by_nncf(model: Any) -> Any:
    """The OpenVINO model with its products in int8."""
    import nncf
    from openvino.passes import ConstantFolding, Manager

    nncf.set_log_level("ERROR")
    # A region's weights are a part of a constant: left as such, OpenVINO quantises them but computes in float32, which
    # takes 235 ms for a clip of casia-b in place of 75.
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    shape = tuple(int(size) for size in model.input(0).shape)
    return nncf.quantize(model, nncf.Dataset(list(calibration(shape))))


def by_onnxruntime(model: bytes) -> bytes:
    """The ONNX model with its products in int8, written as QuantizeLinear and DequantizeLinear."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    graph_input = onnx.load_from_string(model).graph.input[0]
    shape = tuple(size.dim_value for size in graph_input.type.tensor_type.shape.dim)
    batches = ({graph_input.name: batch} for batch in calibration(shape))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "quantised"))
        given.write_bytes(model)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(prepared, quantised, Reader(), quant_format=quantization.QuantFormat.QDQ)
        return quantised.read_bytes()
