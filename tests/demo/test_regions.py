"""The levels of the network, and the film strips that they are drawn over."""

import numpy as np
import pytest

from hstl_fast import PRESETS
from hstl_fast.demo.report import pictures, regions


@pytest.mark.parametrize("preset", PRESETS)
def test_levels_cover_every_part_once(preset: str) -> None:
    config = PRESETS[preset]
    levels = list(regions._levels(config))
    assert [level.first for level in levels] == np.cumsum([0, *(len(level.split) for level in levels[:-1])]).tolist()
    assert levels[-1].first + len(levels[-1].split) == config.parts
    assert [level.split for level in levels[:-1]] == [split for _, _, split in config.pools]


def test_film_strips_end_where_the_walk_begins_again() -> None:
    columns = np.arange(64)
    clip = np.stack([np.broadcast_to(255 * (abs(columns - 25 - t % 13) < 3), (64, 64)) for t in range(30)])
    uri, frames = pictures.film_strip(clip.astype(np.uint8))
    assert frames == 13
    assert uri.startswith("data:image/png;base64,")
