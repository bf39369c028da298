"""Who is unknown in an open-set evaluation, and which walks are enrolled."""

import pytest

from hstl_fast.data import Item
from hstl_fast.evaluation.open_set_division import check_people, divide, draw_people

PEOPLE = [f"{i:03d}" for i in range(20)]


def items(types: dict[str, list[str]]) -> list[Item]:
    return [
        Item(label, type_, view, f"{label}/{type_}/{view}")
        for label, each in types.items()
        for type_ in each
        for view in ("000", "090")
    ]


def test_people_are_drawn_by_the_seed() -> None:
    labels = PEOPLE * 3
    drawn = draw_people(labels, 0.3)
    assert len(drawn) == 6
    assert drawn == draw_people(sorted(labels), 0.3) != draw_people(labels, 0.3, seed=1)
    assert len(draw_people(["a", "b"], 0.01)) == len(draw_people(["a", "b"], 0.99)) == 1


def test_people_may_be_named() -> None:
    assert check_people(["jose\u0301", "\u00e9va", "ann"], ["e\u0301va", "nobody"]) == {"\u00e9va"}


def test_half_of_the_recordings_are_enrolled_with_all_their_views() -> None:
    made = items({"ann": ["a", "b", "c"], "ben": ["a", "b"], "eve": ["a", "b", "c", "d"], "one": ["a"]})
    found = divide(made, frozenset({"eve"}))
    names = [[made[i].name for i in side] for side in (found.gallery, found.probe)]
    assert names[0] == ["ann/a/000", "ann/a/090", "ben/a/000", "ben/a/090", "one/a/000", "one/a/090"]
    assert names[1] == [
        f"{label}/{type_}/{view}"
        for label, type_ in (("ann", "b"), ("ann", "c"), ("ben", "b"), ("eve", "c"), ("eve", "d"))
        for view in ("000", "090")
    ]
    assert found.notes[1] == "1 known person has one recording and is never searched: one."
    few = items({"eve": ["a"], "ann": ["a", "b"]})
    assert [few[i].name for i in divide(few, frozenset({"eve"})).probe] == [
        *("eve/a/000", "eve/a/090"),
        *("ann/b/000", "ann/b/090"),
    ]


def test_bad_input() -> None:
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="share of unknown people must be more than 0 and less than 1"):
            draw_people(PEOPLE, share)
    with pytest.raises(ValueError, match="needs 2 people or more, known and unknown; got ann"):
        draw_people(["ann", "ann"], 0.5)
    with pytest.raises(ValueError, match="none of the people who are to be unknown is in the data: eve"):
        check_people(PEOPLE, ["eve"])
    with pytest.raises(ValueError, match="all 2 people of the data are to be unknown"):
        check_people(["a", "b"], ["a", "b", "c"])
