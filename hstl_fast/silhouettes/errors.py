"""The error and the warning of silhouettes; each message is one sentence."""


class SilhouetteError(ValueError):
    """A file, array or video cannot become a silhouette sequence.

    The message names it, what was expected and what was found.
    """


class SilhouetteWarning(UserWarning):
    """Something was left out of a result that is otherwise good; the message says what."""


def reason_of(error: BaseException) -> str:
    """Return the first sentence of an error of another library, to be quoted in ours."""
    text = str(error).strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".") if text else type(error).__name__
