"""Embed walks and find the nearest known walk for each: `python examples/embed.py` in a checkout."""

from pathlib import Path

from hstl_fast import HSTL
from hstl_fast.evaluation import nearest, part_distances
from hstl_fast.silhouettes import find_sequences, read

STREET = Path(__file__).parents[1] / "tests" / "data" / "street"


def main() -> None:
    """Embed six people of a street scene twice, and name for each walk the nearest one of the other half."""
    # Random weights. With trained ones: HSTL.from_official_checkpoint("weights.pt")
    model = HSTL.from_preset("casia-b", num_classes=1)

    gallery, probe = (find_sequences([STREET / half]) for half in ("gallery", "probe"))  # pairs of name and path
    known = model.embed(read(path) for _, path in gallery)  # [6, 73, 128]; the walks have different lengths
    unknown = model.embed(read(path) for _, path in probe)

    distances = part_distances(unknown, known)  # [6, 6], the mean over parts of the Euclidean distance
    for (name, _), first in zip(probe, nearest(distances, 1)[:, 0].tolist(), strict=True):
        print(f"{name} is most like {gallery[first][0]}")


if __name__ == "__main__":
    main()
