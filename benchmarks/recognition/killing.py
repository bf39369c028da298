"""Kill processes that change a gallery at random moments: every acknowledged change must be there, whole.

    python -m benchmarks.recognition.killing [--kills N] [--url URL] [--seed N] [--json FILE]

A process opens the gallery and enrols, adds, renames and removes people without a pause. It is killed by SIGKILL at a
moment drawn evenly from its first second, or from its first tenth where it makes the gallery. Then the gallery must be
as after the last acknowledged change, or as after the one in progress, with nothing between; and every byte of it must
be sound. Without `--url` the gallery is a file in a temporary folder, made anew ten times.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.core.machine import description, threads
from benchmarks.recognition.small import random_walk, refuse_people, small_network
from hstl_fast.network import Network
from hstl_fast.recognition import Gallery

# People and the number of their recordings.
State = dict[str, int]
CLIPS = 3
# Kills come within so many seconds from the start of a process, and where it makes the gallery within fewer.
LATEST, MAKING = 1.0, 0.1


class Change(NamedTuple):
    """A change of a gallery.

    Attributes:
        kind: `enroll`, `add`, `rename` or `remove`.
        name: The person.
        other: The new name of a `rename`.
    """

    kind: str
    name: str
    other: str = ""

    def applied(self, state: State) -> State:
        """Return what a gallery has after the change."""
        after = dict(state)
        if self.kind == "enroll":
            after[self.name] = CLIPS
        elif self.kind == "add":
            after[self.name] += 1
        else:
            count = after.pop(self.name)
            if self.kind == "rename":
                after[self.other] = count
        return after

    def make(self, gallery: Gallery, generator: np.random.Generator) -> None:
        """Make the change."""
        if self.kind == "enroll":
            gallery.enroll(self.name, [random_walk(generator, f"walk {i}") for i in range(CLIPS)])
        elif self.kind == "add":
            gallery.enroll(self.name, [random_walk(generator, "added")], add=True)
        elif self.kind == "rename":
            gallery.rename(self.name, self.other)
        else:
            gallery.remove(self.name)


def next_change(state: State, new: str, generator: np.random.Generator) -> Change:
    """Draw a change: half of them enrol somebody."""
    if len(state) < 2 or generator.random() < 0.5:
        return Change("enroll", new)
    name = str(generator.choice(sorted(state)))
    kind = str(generator.choice(["add", "rename", "remove"]))
    return Change(kind, name, f"{new} renamed" if kind == "rename" else "")


def keep_changing(url: str, network: Network, seed: int, state: State, said: Connection) -> None:
    """Change a gallery without end, and say what begins and what is done."""
    generator = np.random.default_rng(seed)
    said.send("ready")
    with Gallery(url, network=network) as gallery:
        said.send("open")
        for number in range(10**9):
            change = next_change(state, f"person {seed}-{number}", generator)
            said.send(change)
            change.make(gallery, generator)
            state = change.applied(state)
            said.send("done")


def killed(url: str, network: Network, seed: int, state: State, moment: float) -> tuple[State, Change | None, str]:
    """Start a process that changes a gallery and kill it.

    Args:
        url: The gallery.
        network: What embeds.
        seed: Decides the changes.
        state: What is in the gallery.
        moment: Seconds from the moment when the process is ready to its end.

    Returns:
        What was acknowledged, the change in progress, and what the process did when it was killed.
    """
    context = multiprocessing.get_context("fork")
    listening, said = context.Pipe(duplex=False)
    process = context.Process(target=keep_changing, args=(url, network, seed, state, said))
    process.start()
    said.close()
    assert listening.recv() == "ready"
    time.sleep(moment)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise SystemExit(f"the process ended by itself with {process.exitcode}")
    pending, doing = None, "opening"
    try:
        while True:
            message = listening.recv()
            if isinstance(message, Change):
                pending, doing = message, message.kind
            elif message == "open":
                doing = "between changes"
            else:
                assert pending is not None
                state, pending, doing = pending.applied(state), None, "between changes"
    except EOFError:
        return state, pending, doing


def check(url: str, network: Network, acknowledged: State, pending: Change | None) -> tuple[State, bool]:
    """Check that a gallery has all acknowledged changes, and all of the one in progress or nothing of it.

    Args:
        url: The gallery.
        network: What embeds.
        acknowledged: What must be in it.
        pending: The change in progress, or None.

    Returns:
        What is in it, and whether the change in progress is.

    Raises:
        SystemExit: Something is lost or half there.
    """
    with Gallery(url, network=network) as gallery:
        # A server may still commit what the killed process sent last; another change waits until that is done.
        gallery.delete_expired()
        found = {person.name: person.recordings for person in gallery.people()}
        whole = sum(found.values())
        sound = gallery.check()
        embedded = Counter(gallery.vectors().recordings.tolist())
    after = acknowledged if pending is None else pending.applied(acknowledged)
    if found not in (acknowledged, after):
        raise SystemExit(f"acknowledged: {acknowledged}; in progress: {pending}; found: {found}")
    if sound != whole or len(embedded) != whole:
        raise SystemExit(f"{whole} recordings, of which {sound} are sound and {len(embedded)} have embeddings")
    return found, found != acknowledged


# One thread: a forked process has none of its parent's threads.
@threads(1)
def run(url: str | None, kills: int, seed: int) -> dict[str, Any]:
    """Kill processes and check the gallery after each.

    Args:
        url: The gallery, which must be empty, or None for files in a temporary folder.
        kills: How often.
        seed: Decides the moments and changes.

    Returns:
        What happened, as JSON holds it.
    """
    network, generator = small_network(), np.random.default_rng(seed)
    if url is not None:
        refuse_people(url, network)
    state: State = {}
    moments, doings, acknowledged, completed = [], Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            place = url or f"sqlite:///{folder}/people-{number * min(10, kills) // kills}.db"
            latest = LATEST
            if url is None and not Path(place.removeprefix("sqlite:///")).exists():
                state = {}
                latest = MAKING
            moment = float(generator.uniform(0, latest))
            before = state
            state, pending, doing = killed(place, network, seed * 1000003 + number, state, moment)
            acknowledged += state != before
            state, is_completed = check(place, network, state, pending)
            completed += is_completed
            doings[doing] += 1
            moments.append(moment)
            print(
                f"kill {number + 1}/{kills} after {moment:.3f} s, {doing}: {len(state)} people, all whole", flush=True
            )
    return {
        "database": "sqlite" if url is None or url.startswith("sqlite") else "postgresql",
        "kills": kills,
        "seed": seed,
        "killed_while": dict(doings),
        "rounds_with_acknowledged_changes": acknowledged,
        "changes_complete_but_not_acknowledged": completed,
        "lost": 0,
        "half_written": 0,
        "moments": moments,
    }


def main() -> None:
    """Run, print a summary, and write a JSON file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--url", help="an empty gallery; by default files in a temporary folder")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options.url, options.kills, options.seed)
    doings = ", ".join(f"{doing} {count}" for doing, count in sorted(result["killed_while"].items()))
    print(f"{result['database']}: {result['kills']} kills ({doings}): nothing lost, nothing half-written")
    if options.json is not None:
        whole = {"machine": description(), "torch": torch.__version__, **result}
        options.json.write_text(json.dumps(whole, indent=2) + "\n")


if __name__ == "__main__":
    main()
