"""The protocols by which gait recognition is evaluated on the published data sets."""

from hstl_fast.evaluation.protocols.casia_b import published_test_set
from hstl_fast.evaluation.protocols.outcome import Outcome, Request
from hstl_fast.evaluation.protocols.running import PROTOCOLS, evaluate, run_protocol

__all__ = ["PROTOCOLS", "Outcome", "Request", "evaluate", "published_test_set", "run_protocol"]
