"""A gallery divided over processes is searched to the bit as by one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch.distributed

from hstl_fast.recognition.search import nearest_people
from hstl_fast.recognition.shards import Shards
from tests.helpers.processes import run_two
from tests.recognition.test_search import near_ties

PROGRAM = """
import os
import sys
import numpy as np
import torch.distributed
from hstl_fast.distributed import ProcessError
from hstl_fast.recognition.shards import Shards
from tests.recognition.test_search import near_ties
os.environ["RANK"] = sys.argv[1]
probe, gallery = near_ties()
people = np.random.default_rng(3).choice(6, len(gallery))
with Shards.join() as shards:
    share = shards.share(len(gallery))
    found = shards.nearest_people(None if shards.rank else probe, gallery[share], people[share], 4)
    np.savez(sys.argv[2] + f"/{shards.rank}.npz", *found)
    gallery[-1, 0, 0] = np.nan
    for expected in (ProcessError, ValueError)[shards.rank],:
        try:
            shards.nearest_people(probe, gallery[share], people[share], 4)
        except expected as error:
            print(error)
    with Shards.join() as inner:
        assert inner.size == 2
    assert torch.distributed.is_initialized()
assert not torch.distributed.is_initialized()
"""


def test_one_process_alone() -> None:
    probe, gallery = near_ties()
    people = np.arange(len(gallery)) % 7
    with Shards.join() as shards:
        assert shards.share(len(gallery)) == slice(0, len(gallery))
        for got, expected in zip(
            shards.nearest_people(probe, gallery, people, 3), nearest_people(probe, gallery, people, 3), strict=True
        ):
            np.testing.assert_array_equal(got, expected)
        with pytest.raises(ValueError, match="probe must be given in process 0; got None"):
            shards.nearest_people(None, gallery, people, 3)


@pytest.mark.parametrize("rows", [0, 1, 5, 90])
def test_shares_are_the_whole(rows: int) -> None:
    shares = [Shards(rank, 4).share(rows) for rank in range(4)]
    assert [i for share in shares for i in range(rows)[share]] == list(range(rows))


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    first, second = run_two(PROGRAM, tmp_path, {**os.environ, **variables})
    probe, gallery = near_ties()
    expected = nearest_people(probe, gallery, np.random.default_rng(3).choice(6, len(gallery)), 4)
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for name, values in zip(found.files, expected, strict=True):
                np.testing.assert_array_equal(found[name], values)
    message = "vectors must be finite; got NaN or infinity in vectors[44]\n"
    assert (first, second) == (f"process 1 of 2: {message}", message)
