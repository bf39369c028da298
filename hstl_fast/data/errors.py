"""The error of data sets; each message is one sentence or a few."""


class DataError(ValueError):
    """A data set, a partition or a packed file cannot be used as it is.

    The message names it, what was expected and what was found.
    """
