"""The protocols by which gait recognition is evaluated on the published data sets."""

from hstl_fast.evaluation.protocols.outcome import Outcome, Request, Selection
from hstl_fast.evaluation.protocols.running import PROTOCOLS, TAKERS, evaluate, run_protocol, select_sequences

__all__ = [
    "PROTOCOLS",
    "TAKERS",
    "Outcome",
    "Request",
    "Selection",
    "evaluate",
    "run_protocol",
    "select_sequences",
]
