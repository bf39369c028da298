"""What goes wrong with silhouettes, said in one sentence."""


class SilhouetteError(ValueError):
    """A file, array or video that cannot become a silhouette sequence; the message names it, what was expected and what was found."""
