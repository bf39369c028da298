"""Sightings: what becomes known about tracks from one pass to the next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from hstl_fast.recognition.live.events import Sighting
from hstl_fast.recognition.live.passes import Outcome, Standing


class Sightings:
    """Tells when a track gets its first answer, when the answer changes, and when the track ends.

    Tracks that end without an answer, since they had too few usable silhouettes, are not mentioned.
    """

    def __init__(self) -> None:
        self._firsts: dict[int, datetime] = {}
        self._names: dict[int, str | None] = {}

    def of(self, outcome: Outcome, when: Callable[[int], datetime]) -> list[Sighting]:
        """Tell what an outcome brings that was not known before.

        Args:
            outcome: The outcome of a pass.
            when: Gives the time of a frame by its index.

        Returns:
            The sightings, in the order of tracks.
        """
        told = []
        for number, standing in sorted({**outcome.standings, **outcome.ended}.items()):
            first = self._firsts.setdefault(number, when(standing.first))
            ended = number in outcome.ended
            if standing.answer is not None and (ended or self._is_new(number, standing)):
                self._names[number] = standing.answer.name
                told.append(_sighting(number, standing, first, when(standing.last.frame), ended))
        for number in outcome.ended:
            self._firsts.pop(number)
            self._names.pop(number, None)
        return told

    def _is_new(self, number: int, standing: Standing) -> bool:
        assert standing.answer is not None
        return number not in self._names or self._names[number] != standing.answer.name


def _sighting(number: int, standing: Standing, first: datetime, last: datetime, ended: bool) -> Sighting:
    answer = standing.answer
    assert answer is not None
    return Sighting(
        track=number,
        name=answer.name,
        distance=answer.matches[0].distance if answer.matches else None,
        margin=answer.margin,
        first=first,
        last=last,
        frames=standing.frames,
        ended=ended,
    )
