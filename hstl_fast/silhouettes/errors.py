"""What goes wrong with silhouettes, said in one sentence."""


class SilhouetteError(ValueError):
    """A file, array or video that cannot become a silhouette sequence; the message names it, what was expected and
    what was found."""


class SilhouetteWarning(UserWarning):
    """Something was left out of a result that is otherwise good: one sentence saying what."""


def reason_of(error: BaseException) -> str:
    """The first sentence of another library's error, to be quoted in ours."""
    text = str(error).strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".") if text else type(error).__name__
