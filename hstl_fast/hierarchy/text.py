"""A hierarchy in characters: the tree from head to feet, and its comparison with the published ones."""

from __future__ import annotations

from itertools import accumulate

from hstl_fast.hierarchy.published import Comparison
from hstl_fast.hierarchy.tree import Hierarchy

# The widest tree, in characters.
_WIDTH = 40
DISCLAIMER = (
    "This is constrained clustering of these features. It is not the paper's method, whose features, distance and "
    "linkage were not published."
)


def draw_text(hierarchy: Hierarchy) -> list[str]:
    """Draw the tree: a row for each strip with its place, its region at each chosen cut, and the merges to the right.

    The horizontal axis is the height of the merges.

    Args:
        hierarchy: The tree.

    Returns:
        Lines of ASCII text.
    """
    splits = hierarchy.splits()
    header = ["strip", "body height", *map(str, hierarchy.clusters)]
    regions = [_region_of_each_strip(split) for split in splits]
    rows = []
    for strip in range(hierarchy.strips):
        top, bottom = (f"{end / hierarchy.strips:.3f}" for end in (strip, strip + 1))
        rows.append([str(strip + 1), f"{top} to {bottom}", *(str(region[strip]) for region in regions)])
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    cells = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in [header, *rows]]
    blank = " " * len(cells[0])
    left = [cells[1 + i // 2] if i % 2 == 0 else blank for i in range(2 * hierarchy.strips - 1)]
    lines = [f"{cell}  {tree}".rstrip() for cell, tree in zip(left, _tree(hierarchy), strict=True)]
    return [f"{cells[0]}  tree: merged at height 0 to {hierarchy.merges[-1].height:.3g}", *lines]


def _region_of_each_strip(split: list[int]) -> list[int]:
    return [region for region, strips in enumerate(split, 1) for _ in range(strips)]


def _tree(hierarchy: Hierarchy) -> list[str]:
    """The merges, in two rows for each strip but the last."""
    canvas = [[" "] * (_WIDTH + hierarchy.strips + 2) for _ in range(2 * hierarchy.strips - 1)]
    tallest = hierarchy.merges[-1].height or 1.0
    # Row and column in which each cluster so far ends, by its first strip.
    ends = {strip: (2 * strip, -1) for strip in range(hierarchy.strips)}
    for merge in hierarchy.merges:
        (upper, left), (lower, right) = ends[merge.start], ends.pop(merge.border)
        column = max(1 + round(_WIDTH * merge.height / tallest), left + 2, right + 2)
        for row, end in ((upper, left), (lower, right)):
            canvas[row][end + 1 : column] = "-" * (column - end - 1)
            canvas[row][column] = "+"
        for row in range(upper + 1, lower):
            canvas[row][column] = "|"
        ends[merge.start] = ((upper + lower) // 2, column)
        canvas[(upper + lower) // 2][column] = "+"
    return ["".join(row).rstrip() for row in canvas]


def describe_splits(hierarchy: Hierarchy) -> list[str]:
    """Say what the chosen cuts are.

    Args:
        hierarchy: The tree.

    Returns:
        A line for each cut: the strips of its regions, its boundaries as shares of the body's height, and how stable it
        is.
    """
    lines = []
    for i, (count, split) in enumerate(zip(hierarchy.clusters, hierarchy.splits(), strict=True)):
        boundaries = ", ".join(f"{end / hierarchy.strips:.3f}" for end in list(accumulate(split))[:-1])
        line = f"{count} regions: {split}" if count > 1 else f"1 region: {split}"
        line += f", boundaries at {boundaries}" if boundaries else ""
        if hierarchy.bootstrap is not None:
            line += f", in {hierarchy.bootstrap.shares[i]:.0%} of the resamples"
        lines.append(line)
    return lines


def describe_comparison(comparison: Comparison) -> str:
    """Say how a tree differs from a published hierarchy.

    Args:
        comparison: The two.

    Returns:
        One line.
    """
    published = " -> ".join(map(str, comparison.published))
    if comparison.found is None:
        return f"{comparison.preset}: {published} in eighths; the tree has fewer strips than that"
    if all(comparison.equal):
        return f"{comparison.preset}: {published} in eighths; the tree's cuts are equal"
    found = " -> ".join(map(str, comparison.found))
    levels = zip(comparison.published, comparison.shared, comparison.equal)
    words = ["equal" if equal else f"{shared} of {len(split) - 1} boundaries" for split, shared, equal in levels]
    return f"{comparison.preset}: {published} in eighths; the tree's cuts {found} differ ({', '.join(words)})"
