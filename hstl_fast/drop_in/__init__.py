"""`accelerate`: the HSTL layers in any model, found by their structure, compute with this package's operators."""

from hstl_fast.drop_in.report import Layer, Report
from hstl_fast.drop_in.search import accelerate

__all__ = ["Layer", "Report", "accelerate"]
