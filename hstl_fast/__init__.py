"""HSTL gait recognition with fast native layers. See README.md; `hstl_fast.functional` holds the operators."""

from hstl_fast import _starting  # noqa: F401 - imported before all that takes its time, since it acts at import
from hstl_fast._caches import clear_caches
from hstl_fast.drop_in import accelerate
from hstl_fast.models import HSTL, PRESETS, HSTLConfig, HSTLOutput
from hstl_fast.ops._dispatch import use_algorithm, use_backend
from hstl_fast.version import __version__

__all__ = [
    "HSTL",
    "PRESETS",
    "HSTLConfig",
    "HSTLOutput",
    "__version__",
    "accelerate",
    "clear_caches",
    "use_algorithm",
    "use_backend",
]
