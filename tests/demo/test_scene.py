"""The people of a video as gallery and probes."""

import os
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.demo import scene
from tests.demo.helpers import track


def test_video_is_cut_in_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = [track("track1", 9), track("track2", 6), track("track3", 12)]
    monkeypatch.setattr(scene, "extract", lambda video, progress: tracks)
    cut = scene.filmed(tmp_path / "street.avi", 2, 5, lambda *_: None)
    assert [walk.name for walk in cut.gallery] == ["track1/first-half", "track3/first-half"]
    assert [walk.name for walk in cut.probes] == ["track1/second-half", "track3/second-half"]
    assert np.array_equal(np.concatenate([cut.gallery[0].clip, cut.probes[0].clip]), tracks[0].silhouettes)
    assert np.array_equal(cut.gallery[1].clip, tracks[2].silhouettes[:5])
    assert np.array_equal(cut.probes[1].clip, tracks[2].silhouettes[6:11])
    assert "the longest of 3" in cut.title


def test_a_name_that_is_no_text_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "extract", lambda video, progress: [track("track1", 6), track("track2", 6)])
    cut = scene.filmed(Path(os.fsdecode(b"str\xffeet.avi")), 2, 3, lambda *_: None)
    assert cut.title.encode() == "2 tracks of str�eet.avi".encode()
