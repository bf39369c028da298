"""A stream by RTSP, with a login."""

from pathlib import Path

import pytest

pytest.importorskip("cv2")

from hstl_fast.recognition.live import stream
from hstl_fast.recognition.live.sources import SourceError, open_source
from tests.helpers.rtsp import rtsp_server


def test_a_camera_that_asks_for_a_password(tmp_path: Path) -> None:
    with rtsp_server(tmp_path) as address:
        source = open_source(address, timeout=20)
        frames = iter(source)
        images = [next(frames).image for _ in range(3)]
        source.close()
        assert list(frames) == []
    assert {image.shape for image in images} == {(48, 64, 3)}
    assert source.name.startswith("rtsp://***@127.0.0.1:")
    assert source.name.endswith("/door")


def test_a_wrong_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FIRST_TRIES", 1)
    with rtsp_server(tmp_path) as address:
        source = open_source(address.replace("%2F", "."), timeout=20)
        with pytest.raises(
            SourceError, match=r"\(it cannot be opened\); port \d+ of the host answers, so look at the p"
        ):
            list(source)
