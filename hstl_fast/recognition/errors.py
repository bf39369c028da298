"""The error and the warning of recognition; each message is one sentence for the person at the keyboard."""


class GalleryError(ValueError):
    """A gallery cannot do what was asked; nothing was changed.

    The message names the gallery or the argument, what was expected and what was found.
    """


class GalleryWarning(UserWarning):
    """An answer that is to be taken with care; the message says why."""
