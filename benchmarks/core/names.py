"""Names that results and report share."""

OURS = "hstl_fast cpu"
"""The rival that the others are compared with."""
IN_CLIPS, ONE_THREAD = "the same in clips of 30", "the same on one thread"
"""Ours given the same number of frames in another way, and ours on one of the threads."""
PEOPLE, WALKERS = "people", "walkers"
"""Whose silhouettes are embedded: those of people on a street, or rendered ones."""
