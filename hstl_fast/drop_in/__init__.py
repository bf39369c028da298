"""`accelerate` gives the HSTL layers in any model, found by their structure, the forward of this package's operators."""

from hstl_fast.drop_in.search import Layer, Report, accelerate

__all__ = ["Layer", "Report", "accelerate"]
