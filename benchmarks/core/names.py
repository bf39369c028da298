"""Names that occur in results and that measuring, testing and reporting share."""

# The implementation that all others are compared with.
OURS = "hstl_fast cpu"
# Our own implementation given the same frames as clips of 30, and our own on a single thread.
IN_CLIPS, ONE_THREAD = "the same in clips of 30", "the same on one thread"
# AMD's plug-in for torch.compile.
ZENTORCH = "zentorch"
# Silhouettes are cut from footage of people on a street, or rendered.
PEOPLE, WALKERS = "people", "walkers"
