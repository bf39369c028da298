"""From a video to names: `python examples/video_to_identity.py KNOWN.avi STREET.avi [WEIGHTS.pt]`.

Both videos come from a camera that stands still. The people of the first are enrolled in a gallery, those of the second
are named, or are nobody whom the gallery knows. Needs the extra `[recognition]`.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path

from hstl_fast.network import Network
from hstl_fast.recognition import Clip, Gallery
from hstl_fast.recognition.thresholds import smallest_rate
from hstl_fast.silhouettes import extract


def main(arguments: list[str]) -> None:
    """Name the people of the second video."""
    if importlib.util.find_spec("cv2") is None or importlib.util.find_spec("sqlalchemy") is None:
        print("Skipped: OpenCV or SQLAlchemy is missing; pip install -e '.[recognition]' brings both.")
        return
    if len(arguments) < 2 or not all(Path(path).is_file() for path in arguments):
        print("Skipped: give two videos from a camera that stands still, and a checkpoint if you have one.")
        return
    known, street, *weights = arguments
    network = Network.from_checkpoint(Path(weights[0])) if weights else Network.shipped()

    # A gallery that stays: Gallery("people.db"), or Gallery("postgresql://user@host/people") for several machines.
    with tempfile.TemporaryDirectory() as folder, Gallery(Path(folder) / "people.db", network=network) as gallery:
        for track in extract(known):  # silhouettes [T, 64, 64]; here every track is somebody of his own
            gallery.enroll(track.name, [Clip(track.name, track.silhouettes, track.fps)])

        probes = [Clip(track.name, track.silhouettes, track.fps) for track in extract(street)]
        # The threshold at which 1 % of strangers would get a name, or as few as so many people can tell.
        people = len(gallery.people())
        rate = max(0.01, smallest_rate(people)) if people > 1 else None
        for answer in gallery.identify(probes, false_accept_rate=rate):
            nearest = answer.matches[0]
            print(f"{answer.source}: {answer.name or 'nobody'} (nearest {nearest.person}, {nearest.distance:.3f})")


if __name__ == "__main__":
    main(sys.argv[1:])
