"""A gallery that several processes search together gives the answers of one, and never mixes two states."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch.distributed

from hstl_fast.network import Network
from hstl_fast.recognition import Clip, Gallery
from hstl_fast.recognition.shards import Shards
from hstl_fast.recognition.together import leading
from tests.cli.helpers import walker
from tests.helpers.processes import run_two
from tests.recognition.conftest import WalkMaker

pytest.importorskip("sqlalchemy")
PEOPLE = 5

PROGRAM = """
import os
import sys
from pathlib import Path
os.environ["RANK"] = sys.argv[1]
from hstl_fast.network import Network
from hstl_fast.recognition import Gallery, GalleryError
from hstl_fast.recognition.shards import Shards
from hstl_fast.recognition.together import follow, leading
from tests.helpers.tiny import tiny_model
from tests.recognition.test_together import answered
folder = Path(sys.argv[2])
network = Network(tiny_model(), "custom", "seed:0")
with Shards.join() as shards:
    for name in ("people.db", "other.db" if shards.rank else "people.db", "people.db"):
        with Gallery(folder / name, network=network) as gallery:
            if shards.rank:
                follow(gallery, shards)
                continue
            with leading(gallery, shards):
                try:
                    print(answered(gallery))
                except GalleryError as error:
                    print(error)
"""


def probes() -> list[Clip]:
    return [Clip(f"probe-{i}", walker(i, 8, start=3), 25.0) for i in range(3)]


def answered(gallery: Gallery) -> str:
    """The answers of a gallery, with every digit."""
    answers = gallery.identify(probes(), count=3)
    return json.dumps([[answer.name, *map(vars, answer.matches)] for answer in answers])


@pytest.fixture
def folder(tmp_path: Path, network: Network, walk: WalkMaker) -> Path:
    """The gallery `people.db`, and `other.db` with a person more."""
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        for i in range(PEOPLE):
            gallery.enroll(f"person {i}", [Clip(f"walk-{i}", walker(i, 10), 25.0)])
    shutil.copy(tmp_path / "people.db", tmp_path / "other.db")
    with Gallery(tmp_path / "other.db", network=network) as gallery:
        gallery.enroll("stranger", [walk(1)])
    return tmp_path


def test_one_process_searches_alone(folder: Path, network: Network) -> None:
    with Gallery(folder / "people.db", network=network) as gallery, Shards.join() as shards:
        expected = answered(gallery)
        with leading(gallery, shards):
            assert answered(gallery) == expected


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_answer_as_one(folder: Path, network: Network) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    first, second = run_two(PROGRAM, folder, {**os.environ, **variables})
    with Gallery(folder / "people.db", network=network) as gallery:
        expected = answered(gallery)
    changed = "the gallery was changed while several processes began to search it; ask again"
    assert first.splitlines() == [expected, changed, expected]
    assert not second
