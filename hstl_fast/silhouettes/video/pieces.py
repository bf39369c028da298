"""Pieces of bodies: which blobs are parts of one torn body, and which meetings of blobs are meetings of people."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.video.blobs import Blob, join, overlaps

# A body that falls into pieces and is whole again after at most so many frames was torn.
LONGEST_TEAR = 5
# It then has at least this share of the height that it had before.
HEALED = 0.8
# Of the blobs that run together, one this high, in heights of what they become, is a person.
PERSON_SHARE = 0.6
# A lower one is a person if it has lived so many frames, and moved by this share of the other's height relative to it.
LIFETIME, INDEPENDENCE = 8, 0.3
# The relative motion is looked for in so many frames before blobs meet.
MEMORY = 60

Links = list[NDArray[np.bool_]]


def links_between(blobs: list[list[Blob]]) -> Links:
    """Link the blobs of neighbouring frames that show the same body.

    Args:
        blobs: The blobs of every frame.

    Returns:
        For each frame but the last, bool `[blobs of the frame, blobs of the next frame]`.
    """
    return [overlaps(before, after) for before, after in pairwise(blobs)]


def mend(blobs: list[list[Blob]]) -> tuple[list[list[Blob]], Links]:
    """Join the pieces of bodies that are torn for a few frames.

    A body is torn where clothes have the colour of the background or something thin stands in front. Blobs that come
    from one blob, and become one blob again after at most LONGEST_TEAR frames, are its pieces.

    Args:
        blobs: The blobs of every frame.

    Returns:
        The blobs of every frame, with the pieces of each torn body joined to one blob, and their links.
    """
    links = links_between(blobs)
    groups: list[list[set[int]]] = [[] for _ in blobs]
    for t, link in enumerate(links):
        for i in np.flatnonzero(link.sum(axis=1) >= 2):
            for frame, pieces in _tear(blobs, links, t, int(i)):
                groups[frame].append(pieces)
    mended = [_joined(frame, pieces) if pieces else frame for frame, pieces in zip(blobs, groups, strict=True)]
    for t in range(len(links)):
        if groups[t] or groups[t + 1]:
            links[t] = overlaps(mended[t], mended[t + 1])
    return mended, links


def _tear(blobs: list[list[Blob]], links: Links, t: int, i: int) -> list[tuple[int, set[int]]]:
    """Frames and pieces of the tear that follows blob `i` of frame `t`; empty if the pieces stay apart."""
    tear: list[tuple[int, set[int]]] = []
    pieces = {i}
    for frame in range(t, min(t + LONGEST_TEAR + 1, len(links))):
        link = links[frame]
        following = set(np.flatnonzero(link[sorted(pieces)].any(axis=0)).tolist())
        if set(np.flatnonzero(link[:, sorted(following)].any(axis=1)).tolist()) != pieces:
            return []  # a piece is gone, or somebody else has come
        pieces = following
        if len(pieces) == 1:
            (j,) = pieces
            return tear if blobs[frame + 1][j].height >= HEALED * blobs[t][i].height else []
        tear.append((frame + 1, pieces))
    return []


def _joined(frame: list[Blob], groups: list[set[int]]) -> list[Blob]:
    single = set(range(len(frame))) - set().union(*groups)
    return [frame[i] for i in sorted(single)] + [join([frame[i] for i in sorted(group)]) for group in groups]


def between_people(blobs: list[list[Blob]], links: Links) -> tuple[Links, Links]:
    """Leave out links to and from pieces that are no people where blobs run together or part.

    An arm that enters the picture before the trunk, or legs under a coat of the background's colour, are no people who
    meet. Of the blobs that run together, those are people that are nearly as high as what they become, or that have
    walked about by themselves; of the others only the largest keeps its link, and only if nobody else is there.

    Args:
        blobs: The blobs of every frame.
        links: Their links, as `links_between` gives them.

    Returns:
        The links for meetings, and the links for partings.
    """
    meetings = _prune(blobs, links)
    backwards = _prune(blobs[::-1], [link.T for link in reversed(links)])
    return meetings, [link.T for link in reversed(backwards)]


def _prune(blobs: list[list[Blob]], links: Links) -> Links:
    before = _predecessors(links, [len(frame) for frame in blobs])
    pruned = [link.copy() for link in links]
    for t, link in enumerate(links):
        for j in np.flatnonzero(link.sum(axis=0) >= 2):
            pieces = [_Piece(blobs, before, t, int(i)) for i in np.flatnonzero(link[:, j])]
            people = [p for p in pieces if p.is_a_person(blobs[t + 1][j], pieces)]
            kept = people or [max(pieces, key=lambda p: p.blob.area)]
            pruned[t][:, j] = False
            pruned[t][[p.index for p in kept], j] = True
    return pruned


def _predecessors(links: Links, counts: list[int]) -> list[NDArray[np.intp]]:
    """The index of the one blob in the frame before that became a blob and no other, or -1, for every blob."""
    before = [np.full(count, -1, dtype=np.intp) for count in counts]
    for t, link in enumerate(links):
        i, j = np.nonzero(link & (link.sum(axis=0) == 1) & (link.sum(axis=1) == 1)[:, None])
        before[t + 1][j] = i
    return before


@dataclass(frozen=True, eq=False)
class _Piece:
    """A blob that runs together with others in the next frame."""

    blobs: list[list[Blob]]
    before: list[NDArray[np.intp]]
    frame: int
    index: int

    @property
    def blob(self) -> Blob:
        return self.blobs[self.frame][self.index]

    def is_a_person(self, becomes: Blob, pieces: list[_Piece]) -> bool:
        if self.blob.height >= PERSON_SHARE * becomes.height:
            return True
        if self.blob.touches_border or not self.blob.looks_like_a_body:
            return False
        others = [p for p in pieces if p is not self]
        return self._walked_about(max(others, key=lambda p: p.blob.area))

    def _walked_about(self, other: _Piece) -> bool:
        """Tell whether the blob lived longer than the other, or the two moved relative to each other."""
        mine, theirs = self._centres(), other._centres()
        count = min(len(mine), len(theirs))
        if count < LIFETIME:
            return len(mine) >= LIFETIME
        apart = mine[:count] - theirs[:count]
        farthest = np.linalg.norm(apart - apart[0], axis=1).max()
        return bool(farthest >= INDEPENDENCE * max(self.blob.height, other.blob.height))

    def _centres(self) -> NDArray[np.float64]:
        """Centres `[K, 2]` of the blob and of those it came from, the latest first."""
        centres: list[tuple[float, float]] = []
        frame, index = self.frame, self.index
        while index >= 0 and len(centres) < MEMORY:
            x, y, width, height = self.blobs[frame][index].box
            centres.append((x + width / 2, y + height / 2))
            index = int(self.before[frame][index])
            frame -= 1
        return np.array(centres)
