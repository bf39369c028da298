"""The time, in one place."""

from datetime import datetime, timezone


def now() -> datetime:
    """Return the time in UTC.

    Returns:
        The time.
    """
    return datetime.now(timezone.utc)
