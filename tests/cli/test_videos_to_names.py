"""From videos to names by the commands alone, with people who are really cut out, and a gallery on a server."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.helpers import run, walker
from tests.silhouettes.video.footage import Walker, write_video

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
pytest.importorskip("sqlalchemy")
pytestmark = pytest.mark.slow
FRAMES = 90
# Two people who never touch, one above the other in the picture.
ANN, BO = Walker(-20, 6, ground=105, height=90), Walker(500, -6, ground=230, height=100, colour=(200, 30, 30))


def test_from_videos_to_names(tmp_path: Path) -> None:
    people, both = tmp_path / "people.db", write_video(tmp_path / "both.avi", [ANN, BO], FRAMES)
    options = ["--gallery", people]
    run("enroll", "ann", write_video(tmp_path / "ann.avi", [ANN], FRAMES), *options)
    result = run("enroll", "bo", both, *options, exit_code=1)
    assert "both.avi: expected one person, got 2 tracks that overlap in time" in result.stderr
    run("enroll", "bo", write_video(tmp_path / "bo.avi", [BO], FRAMES), *options)
    empty = write_video(tmp_path / "empty.avi", [], 40)
    result = run("identify", *options, "--probe", both, "--probe", empty, "--json", tmp_path / "o.json", exit_code=1)
    assert f"{empty}: no track of 30 frames or more" in result.stderr
    answers = json.loads((tmp_path / "o.json").read_text())["probes"]
    names = {answer["probe"].partition("-track")[0]: answer["name"] for answer in answers}
    assert set(names) == {"both.avi"}
    # The walk is the same but for the noise of the camera, and so are the tracks' people: one of each.
    assert {answer["name"] for answer in answers} == {"ann", "bo"}


def test_a_gallery_on_a_server(tmp_path: Path, postgres_url: str) -> None:
    for number, name in enumerate(("ann", "bo")):
        np.save(tmp_path / f"{name}.npy", walker(number, 40))
        np.save(tmp_path / f"{name}-probe.npy", walker(number, 30, start=3))
    options = ["--gallery", postgres_url]
    results = [run("enroll", name, tmp_path / f"{name}.npy", *options) for name in ("ann", "bo")]
    results.append(run("identify", *options, "--probe", tmp_path / "bo-probe.npy", "--json", tmp_path / "o.json"))
    results.append(run("gallery", "list", *options))
    document = json.loads((tmp_path / "o.json").read_text())
    assert [answer["name"] for answer in document["probes"]] == ["bo"]
    password = postgres_url.partition("@")[0].rpartition(":")[2]
    assert len(password) >= 8
    assert not any(password in each.output for each in results)
    assert password not in document["gallery"]
