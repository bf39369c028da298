"""Libraries of others that can run the networks or their convolutions, where they are installed."""

from benchmarks.gpu.runtimes.cudnn_frontend import CudnnFrontend
from benchmarks.gpu.runtimes.runtime import Runtime
from benchmarks.gpu.runtimes.spconv import Spconv
from benchmarks.gpu.runtimes.tensorrt import TensorRT

__all__ = ["RUNTIMES", "Runtime"]

RUNTIMES: tuple[Runtime, ...] = (CudnnFrontend(), Spconv(), TensorRT("float16"), TensorRT("int8"))
