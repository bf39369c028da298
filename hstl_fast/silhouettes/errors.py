"""The error and the warning of silhouettes; each message is one sentence."""


class SilhouetteError(ValueError):
    """A file, array or video cannot become a silhouette sequence.

    The message names it, what was expected and what was found.
    """


class SilhouetteWarning(UserWarning):
    """Something was left out of a result that is otherwise good; the message says what."""


def reason_of(error: BaseException) -> str:
    """Return the first sentence of an error of another library, which a file may have chosen, to be quoted in ours."""
    text = str(error).strip()
    return short(text.splitlines()[0].split(". ")[0].rstrip(".")) if text else type(error).__name__


def short(text: str, length: int = 300) -> str:
    """Return a text that a file has chosen as one line of bounded length, to be quoted in an error."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length else f"{line[:length]}..."
