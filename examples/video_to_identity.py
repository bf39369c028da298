"""From a video to names: `python examples/video_to_identity.py KNOWN.avi STREET.avi [WEIGHTS.pt]`.

Both videos come from a camera that stands still. The people of the first are known, those of the second are looked for.
Needs OpenCV and the tracker of the extra `[video]`.
"""

import importlib.util
import sys
from pathlib import Path

from hstl_fast import HSTL
from hstl_fast.evaluation import nearest, part_distances
from hstl_fast.silhouettes import extract


def main(arguments: list[str]) -> None:
    """Name for each track of the second video the nearest track of the first."""
    if importlib.util.find_spec("cv2") is None:
        print("Skipped: OpenCV is missing; pip install -e '.[video]' brings it.")
        return
    if len(arguments) < 2 or not all(Path(path).is_file() for path in arguments):
        print("Skipped: give two videos from a camera that stands still, and a checkpoint if you have one.")
        return
    known_video, street, *weights = arguments
    model = HSTL.from_official_checkpoint(weights[0]) if weights else HSTL.from_preset("casia-b", num_classes=1)

    known, unknown = extract(known_video), extract(street)  # tracks, each with silhouettes [T, 64, 64]
    gallery = model.embed(track.silhouettes for track in known)
    probe = model.embed(track.silhouettes for track in unknown)

    for track, first in zip(unknown, nearest(part_distances(probe, gallery), 1)[:, 0].tolist(), strict=True):
        print(f"{track.name}, frames {track.frames[0]} to {track.frames[-1]}: most like {known[first].name}")


if __name__ == "__main__":
    main(sys.argv[1:])
