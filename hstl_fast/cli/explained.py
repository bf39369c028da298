"""Explanations of answers for `hstl-fast identify --explain`: which parts of the body speak for the name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation import Embeddings
from hstl_fast.models.config import HSTLConfig
from hstl_fast.recognition.explaining import Explanation, explain
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.records import Answer, Clip
from hstl_fast.version import __version__


def embedded(gallery: Gallery, clips: Sequence[Clip]) -> Embeddings:
    """Embed clips by the network of a gallery, so that answers about them can be explained."""
    network = gallery.network
    vectors = network.model.embed(clip.silhouettes for clip in clips).float().cpu().numpy()
    rates = np.array([np.nan if clip.fps is None else clip.fps for clip in clips], np.float64)
    lengths = np.array([len(clip.silhouettes) for clip in clips], np.int64)
    names = tuple(clip.source for clip in clips)
    return Embeddings(vectors, names, lengths, network.preset, network.weights, __version__, rates)


def explained(
    gallery: Gallery, answers: Sequence[Answer], vectors: NDArray[np.float32], config: HSTLConfig | None
) -> list[Explanation | None]:
    """Explain answers.

    Args:
        gallery: The gallery.
        answers: Its answers.
        vectors: The embeddings of the probes, `[n, P, C]`.
        config: The network, which tells the regions of the body; None leaves them out.

    Returns:
        An explanation for each answer, or None where a recording has left the gallery meanwhile.
    """
    known = gallery.vectors()
    rows = {recording: row for row, recording in enumerate(known.recordings.tolist())}
    found: list[Explanation | None] = []
    for answer, vector in zip(answers, vectors, strict=True):
        nearest = [rows.get(match.recording) for match in answer.matches[:2]]
        if None in nearest:
            found.append(None)
            continue
        first, *others = (np.asarray(known.vectors[row]) for row in nearest)
        found.append(explain(vector, first, others[0] if others else None, config))
    return found
