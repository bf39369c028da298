"""Counts of a data set, a summary for people, and a report file that lists all that was left out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hstl_fast.data.errors import DataError
from hstl_fast.data.layouts.walk import OTHER_MODALITY
from hstl_fast.data.partitions import PARTS
from hstl_fast.data.sequences import Sequences
from hstl_fast.files import atomic_file
from hstl_fast.silhouettes.collecting import CUT, NOT_ALIGNED
from hstl_fast.silhouettes.left_out import LeftOut, by_reason

# What is chosen or said, and not lost.
NOT_LOST = {OTHER_MODALITY, NOT_ALIGNED, CUT}
# Labels that GREW gives to sequences of people who are not known.
NOBODY = {"probe", "distractor"}


def describe(sequences: Sequences, more: Iterable[LeftOut] = ()) -> dict[str, Any]:
    """Count what a data set has, and what was left out of it.

    Args:
        sequences: The data set.
        more: What was left out beside `sequences.left_out`, such as frames that were met when reading.

    Returns:
        `source`, `layout`, `people`, `types`, `views`, `sequences`, `sequences_of_unknown_people` (probes and
        distractors of GREW, who do not count as people), `frames` (None where only reading would tell), `left_out`
        (counts by reason), `notes`, and `partition`: None, or for `train` and `test` the `people` and `sequences` of
        each in the data.
    """
    nobody = _nobody(sequences)
    return {
        "source": sequences.source,
        "layout": sequences.layout,
        "people": len(set(sequences.labels) - nobody),
        "types": len({kind for kind in sequences.types if kind}),
        "views": len({view for view in sequences.views if view}),
        "sequences": len(sequences),
        "sequences_of_unknown_people": sum(label in nobody for label in sequences.labels) if nobody else 0,
        "frames": sequences.total_frames,
        "left_out": by_reason([*sequences.left_out, *more]),
        "notes": list(sequences.notes),
        "partition": _parts(sequences),
    }


def summarise(sequences: Sequences, more: Iterable[LeftOut] = ()) -> list[str]:
    """Say what a data set has, and what was left out of it.

    Args:
        sequences: The data set.
        more: What was left out beside `sequences.left_out`.

    Returns:
        Lines of text: one with the counts, then one each for the partition, what was left out, and every note.
    """
    found = describe(sequences, more)
    kinds = [("people", "person"), ("types", "type"), ("views", "view"), ("sequences", "sequence"), ("frames", "frame")]
    counts = [counted(found[many], one, many) for many, one in kinds if found[many]]
    if found["sequences_of_unknown_people"]:
        counts.append(f"{found['sequences_of_unknown_people']} of the sequences of unknown people")
    lines = [f"{found['source']}: {', '.join(counts) or 'no sequences'} (layout {found['layout']})"]
    if found["partition"]:
        parts = [
            f"{part} {counted(each['people'], 'person', 'people')}, "
            f"{counted(each['sequences'], 'sequence', 'sequences')}"
            for part, each in found["partition"].items()
        ]
        lines.append(f"Partition: {'; '.join(parts)}")
    if found["left_out"]:
        lines.append(f"Left out: {'; '.join(f'{count} x {reason}' for reason, count in found['left_out'].items())}")
    return lines + [f"Note: {note}" for note in found["notes"]]


def write_report(path: str | os.PathLike[str], sequences: Sequences, more: Iterable[LeftOut] = ()) -> None:
    """Write a file that lists all that was left out, atomically.

    Args:
        path: The file; the suffix `.json` gives JSON, `describe` with the list `left_out_list` of `where`, `reason` and
            `detail`; any other gives text, the lines of `summarise` and then one line for each thing left out.
        sequences: The data set.
        more: What was left out beside `sequences.left_out`.

    Raises:
        OSError: The file cannot be written.
    """
    target, more = Path(path), list(more)
    every = [*sequences.left_out, *more]
    with atomic_file(target) as draft, draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
        if target.suffix.lower() == ".json":
            listed = [each._asdict() for each in every]
            json.dump({**describe(sequences, more), "left_out_list": listed}, file, indent=1)
            file.write("\n")
            return
        for line in summarise(sequences, more):
            print(line, file=file)
        for each in every:
            line = f"{each.reason}: {each.where}{f' ({each.detail})' if each.detail else ''}"
            print(line.replace("\n", "\\n"), file=file)


def check_nothing_left_out(sequences: Sequences, more: Iterable[LeftOut] = ()) -> None:
    """Refuse a data set of which something was left out, other than by choice.

    Files of other modalities, frames beyond a limit that was asked for, and sequences that were aligned here do not
    count.

    Args:
        sequences: The data set.
        more: What was left out beside `sequences.left_out`.

    Raises:
        DataError: Something was left out; the message has the counts by reason.
    """
    counts = by_reason(each for each in [*sequences.left_out, *more] if each.reason not in NOT_LOST)
    if counts:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in counts.items())
        raise DataError(f"{sequences.source}: expected to leave out nothing (--strict), got {reasons}")


def _nobody(sequences: Sequences) -> set[str]:
    """Labels that are no people: those of GREW, as published or as OpenGait rearranges it."""
    labels = set(sequences.labels)
    is_grew = sequences.layout == "grew" or any(re.fullmatch(r"\d+train", label) for label in labels)
    return labels & NOBODY if is_grew else set()


def _parts(sequences: Sequences) -> dict[str, dict[str, int]] | None:
    if sequences.partition is None:
        return None
    counts = {}
    for part in PARTS:
        named = set(getattr(sequences.partition, part))
        inside = [label for label in sequences.labels if label in named]
        counts[part] = {"people": len(set(inside)), "sequences": len(inside)}
    return counts


def counted(number: int, one: str, many: str) -> str:
    """Write a number with its noun in the singular or the plural."""
    return f"{number} {one if number == 1 else many}"
