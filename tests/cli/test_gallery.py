"""`hstl-fast gallery`: what it lists, changes, asks and refuses."""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from hstl_fast import checkpoints
from tests.cli.helpers import run, walker
from tests.helpers.tiny import tiny_model

pytest.importorskip("sqlalchemy")
PEOPLE = ("ann", "bo", "cyd")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of three people with two recordings each, made with `weights.pt` beside it."""
    folder = tmp_path_factory.mktemp("gallery")
    checkpoints.save_checkpoint(folder / "weights.pt", tiny_model())
    for number, name in enumerate(PEOPLE):
        walks = [folder / f"{name}-{take}.npy" for take in range(2)]
        for take, path in enumerate(walks):
            np.save(path, walker(number, 30, start=9 * take))
        run("enroll", name, *walks, "--gallery", folder / "people.db", "--checkpoint", folder / "weights.pt")
    return folder


@pytest.fixture
def people(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "people.db", tmp_path))


def gallery(command: str, *arguments: object, exit_code: int = 0, typed: str | None = None) -> Any:
    return run("gallery", command, *arguments, exit_code=exit_code, typed=typed)


def listed(people: Path) -> dict[str, int]:
    facts = json.loads(gallery("list", "--gallery", people, "--json").stdout)
    return {person["name"]: person["recordings"] for person in facts["people"]}


def test_lists_people_and_recordings(people: Path) -> None:
    result = gallery("list", "--gallery", people)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:4]] == [[name, "2"] for name in PEOPLE]
    assert "3 people, 6 recordings; embeddings of custom (sha256:" in result.stdout
    result = gallery("list", "bo", "--gallery", people)
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:3]] == [["3", "bo-0", "30"], ["4", "bo-1", "30"]]
    assert "1 person, 2 recordings" in result.stdout
    result = gallery("list", "dan", "--gallery", people, exit_code=1)
    assert "dan" in result.stderr


def test_remove_asks_first(people: Path) -> None:
    result = gallery("remove", "ann", "--gallery", people, exit_code=1, typed="n\n")
    assert "Delete ann with 2 recordings from" in result.stdout
    assert listed(people)["ann"] == 2
    gallery("remove", "ann", "--gallery", people, typed="y\n")
    assert listed(people) == {"bo": 2, "cyd": 2}
    gallery("remove", "--recording", 3, "--gallery", people, "--yes")
    assert listed(people) == {"bo": 1, "cyd": 2}
    for arguments in ([], ["bo", "--recording", 4]):
        result = gallery("remove", *arguments, "--gallery", people, "--yes", exit_code=2)
        assert "expected NAME or --recording NUMBER" in result.stderr
    assert listed(people) == {"bo": 1, "cyd": 2}


def test_a_question_that_is_interrupted_ends_as_all_else_does(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise click.Abort from None  # as click does

    monkeypatch.setattr(click, "confirm", interrupted)
    assert gallery("remove", "ann", "--gallery", people, exit_code=130).stderr.strip() == "Aborted!"
    assert listed(people)["ann"] == 2


def test_rename(people: Path) -> None:
    gallery("rename", "ann", "anna", "--gallery", people)
    assert listed(people) == {"anna": 2, "bo": 2, "cyd": 2}
    result = gallery("rename", "anna", "bo", "--gallery", people, exit_code=1)
    assert "'bo'" in result.stderr


def test_what_is_exported_can_be_imported(people: Path, tmp_path: Path) -> None:
    export, other = tmp_path / "people.npz", tmp_path / "other.db"
    assert "3 people, 6 recordings" in gallery("export", export, "--gallery", people).stdout
    gallery("import", export, "--gallery", other)
    assert listed(other) == listed(people)
    result = gallery("import", export, "--gallery", other, exit_code=1)
    assert "taken" in result.stderr
    gallery("remove", "bo", "--gallery", other, "--yes")
    gallery("import", export, "--gallery", other, "--add")
    assert listed(other) == listed(people)


def test_refresh_takes_another_network(people: Path, made: Path, tmp_path: Path) -> None:
    weights = tmp_path / "other.pt"
    checkpoints.save_checkpoint(weights, tiny_model(1))
    before = json.loads(gallery("list", "--gallery", people, "--json").stdout)["network"]["weights"]
    result = gallery("refresh", "--gallery", people, "--checkpoint", weights)
    assert "6 recordings embedded by custom" in result.stdout
    assert json.loads(gallery("list", "--gallery", people, "--json").stdout)["network"]["weights"] != before
    np.save(tmp_path / "dan.npy", walker(4, 30))
    enroll = ["enroll", "dan", tmp_path / "dan.npy", "--gallery", people]
    run(*enroll, "--checkpoint", made / "weights.pt", exit_code=1)
    run(*enroll, "--checkpoint", weights, "--no-keep-silhouettes")
    result = gallery("refresh", "--gallery", people, "--checkpoint", made / "weights.pt", exit_code=1)
    assert "1 recording has no silhouettes (--no-keep-silhouettes) and cannot be embedded: 7 of dan" in result.stderr


def test_thresholds_are_found_and_stored(people: Path, made: Path) -> None:
    command = ["threshold", "--gallery", people]
    result = gallery(*command)
    assert "no threshold is stored" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()[1:3]]
    assert [rows[0][:3], rows[1][:2]] == [["10", "%", "cannot"], ["14.3", "%"]], "six recordings tell 1 in 7 at best"
    assert "A false-accept rate of 10 % cannot be told from 6 recordings of 3 people" in result.stdout
    facts = json.loads(gallery(*command, "--false-accept-rate", 0.3, "--json").stdout)
    (found,) = facts["found"]
    assert facts["stored"] == {"distance": found["distance"], "false_accept_rate": found["false_accept_rate"]}
    probe = ["identify", "--gallery", people, "--probe", made / "ann-1.npy", "--checkpoint", made / "weights.pt"]
    assert f"threshold: {found['distance']:.6f}, at which" in run(*probe).stdout
    result = gallery(*command, "--false-accept-rate", 0.01, exit_code=1)
    assert "a false-accept rate of 1 % cannot be told from 6 recordings of 3 people" in result.stderr
    assert json.loads(gallery(*command, "--json").stdout)["stored"] == facts["stored"]
    gallery(*command, "--distance", 1.5)
    assert "threshold: 1.500000, at which an unknown share of strangers" in run(*probe).stdout
    result = gallery(*command, "--distance", 1, "--clear", exit_code=2)
    assert "--false-accept-rate, --distance, --clear: expected one of them" in result.stderr
    assert json.loads(gallery(*command, "--clear", "--json").stdout)["stored"] is None


def test_recordings_are_deleted_when_their_time_is_over(people: Path) -> None:
    assert (
        "0 recordings deleted, whose time was over; 3 people" in gallery("delete-expired", "--gallery", people).stdout
    )


@pytest.mark.parametrize("command", [["list"], ["rename", "a", "b"], ["remove", "a", "--yes"], ["threshold"]])
def test_a_missing_gallery_is_not_made(tmp_path: Path, command: list[str]) -> None:
    result = run("gallery", *command, "--gallery", tmp_path / "people.db", exit_code=1)
    assert "there is no such gallery; `hstl-fast enroll` makes one" in result.stderr
    assert not (tmp_path / "people.db").exists()


def test_a_damaged_gallery_is_said_and_left_alone(people: Path) -> None:
    content = bytearray(people.read_bytes())
    content[4096:20000] = bytes(20000 - 4096)
    people.write_bytes(content)
    result = gallery("list", "--gallery", people, exit_code=1)
    assert "damaged" in result.stderr
    assert people.read_bytes() == bytes(content)


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_moments_are_those_of_the_clock_on_the_wall(people: Path) -> None:
    created = json.loads(run("gallery", "list", "--gallery", people, "--json").stdout)["people"][0]["created"]
    shown = run("gallery", "list", "--gallery", people).stdout.splitlines()[1]
    assert f"{datetime.fromisoformat(created).astimezone():%Y-%m-%d %H:%M}" in shown
    assert f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M}" not in shown


def test_check_finds_damage(people: Path) -> None:
    assert "6 recordings checked, nothing is damaged" in gallery("check", "--gallery", people).stdout
    with closing(sqlite3.connect(people)) as database, database:
        database.execute("UPDATE hstl_embeddings SET vector = zeroblob(length(vector)) WHERE id = 2")
    result = gallery("check", "--gallery", people, exit_code=1)
    assert "embedding" in result.stderr
    assert "checksum" in result.stderr


def test_compact_gives_back_room(people: Path) -> None:
    gallery("remove", "bo", "--yes", "--gallery", people)
    with closing(sqlite3.connect(people)) as database, database:  # what much deleted data leaves behind
        database.execute("CREATE TABLE deleted AS SELECT zeroblob(1000000)")
        database.execute("DROP TABLE deleted")
    before = people.stat().st_size
    assert "2 people, 4 recordings" in gallery("compact", "--gallery", people).stdout
    assert people.stat().st_size < before - 900_000
    assert "bo" not in listed(people)
