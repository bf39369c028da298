"""How long-running functions report their progress."""

from collections.abc import Callable

# A progress function is called as `progress(stage, done, total)`: `stage` is a short English phrase, and `done` runs
# from 0 to `total` within it.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing.

    Args:
        stage: What is being done.
        done: How much of it is done.
        total: How much there is to do.
    """
