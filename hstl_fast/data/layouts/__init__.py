"""The layouts of data sets on disk, one per file; a new one is a file here and a line in `TREES`."""

from hstl_fast.data.layouts import casia_b, gait3d, grew, opengait, oumvlp, sustech1k
from hstl_fast.data.layouts.base import Candidate, Layout, Leaf

TREES: dict[str, Layout] = {
    module.LAYOUT.name: module.LAYOUT for module in (opengait, casia_b, oumvlp, grew, gait3d, sustech1k)
}
FOLDERS = "folders"
LAYOUTS = (*TREES, FOLDERS)

__all__ = ["FOLDERS", "LAYOUTS", "TREES", "Candidate", "Layout", "Leaf"]
