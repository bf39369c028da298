"""What cannot be evaluated is refused with one sentence that says what was expected and found."""

from typing import Any

import numpy as np
import pytest
import torch

from hstl_fast.evaluation import evaluate
from hstl_fast.evaluation.protocols import Request, select_sequences

TYPES = ["00", "01", "00", "01"]
VIEWS = ["000", "000", "015", "015"]
LABELS = ["00002", "00002", "00004", "00004"]
VECTORS = np.arange(8, dtype=np.float32).reshape(4, 1, 2)


def refused(protocol: str = "oumvlp", **changed: Any) -> str:
    given = {"vectors": VECTORS, "labels": LABELS, "types": TYPES, "views": VIEWS} | changed
    with pytest.raises(ValueError) as error:
        evaluate(protocol, **given)
    return str(error.value)


def test_unknown_names() -> None:
    assert "protocol must be one of casia-b, oumvlp, gait3d, grew-validation, grew; got 'casiab'" in refused("casiab")
    assert "did you mean 'casia-b'?" in refused("casiab")
    assert refused(metric="hamming") == "metric must be one of euclidean, cosine; got 'hamming'"


@pytest.mark.parametrize("protocol", ["casia-b", "oumvlp", "grew-validation", "grew"])
def test_options_of_other_protocols(protocol: str) -> None:
    assert refused(protocol, probes=["a-b-c"]) == f"probes is for gait3d; got the protocol {protocol}"
    if protocol != "casia-b":
        assert refused(protocol, cross_view=True) == f"cross_view is for casia-b; got the protocol {protocol}"
    if not protocol.startswith("grew"):
        message = f"rerank is for gait3d, grew-validation, grew; got the protocol {protocol}"
        assert refused(protocol, rerank=True) == message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_are_taken_as_they_come_from_a_network(dtype: torch.dtype) -> None:
    views = ["000", "015", "015", "000"]
    expected = evaluate("oumvlp", VECTORS, LABELS, TYPES, views)
    tensor = torch.from_numpy(VECTORS).to(dtype).requires_grad_()
    assert evaluate("oumvlp", tensor, LABELS, TYPES, views) == expected


@pytest.mark.parametrize("name", ["labels", "types", "views"])
def test_another_number_of_names_than_of_embeddings(name: str) -> None:
    assert refused(**{name: ["a", "b", "c"]}) == f"{name} must name each of the 4 embeddings; got 3"
    assert refused(**{name: "abcd"}) == f"{name} must name each of the 4 embeddings; got 'abcd'"


@pytest.mark.parametrize(
    ("vectors", "got"),
    [
        (np.zeros((4, 2), np.float32), "float32 [4, 2]"),
        (np.zeros((4, 1, 2), np.uint8), "uint8 [4, 1, 2]"),
        (np.zeros((0, 1, 2), np.float32), "float32 [0, 1, 2]"),
    ],
)
def test_arrays_that_are_no_embeddings(vectors: np.ndarray, got: str) -> None:
    assert refused(vectors=vectors) == f"vectors must be embeddings [N, P, C] of a floating type; got {got}"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite(value: float) -> None:
    vectors = VECTORS.copy()
    vectors[1:3, 0, 1] = value
    assert refused(vectors=vectors) == (
        "vectors must be finite; got NaN or infinity in 2 of 4 embeddings, the first of them number 1 (00002/01/000)"
    )


def test_people_in_two_spellings() -> None:
    message = "labels must name a person in one way; got '002' and '2', the same number"
    assert refused(labels=["002", "2", "4", "4"]) == message


@pytest.mark.parametrize(
    ("protocol", "types", "wanted"),
    [
        ("casia-b", ["nm-05", "bg-01", "nm-07", "00"], "a gallery of the types nm-01, nm-02, nm-03, nm-04"),
        ("casia-b", ["nm-01", "nm-02", "nm-07", "00"], "probes of the types nm-05, nm-06, bg-01, bg-02, cl-01, cl-02"),
        ("oumvlp", ["00", "00", "02", "02"], "a gallery of the types 01"),
        ("oumvlp", ["01", "01", "02", "02"], "probes of the types 00"),
        ("grew-validation", ["02", "03", "03", "03"], "a gallery of the types 01"),
        ("grew-validation", ["01", "03", "03", "03"], "probes of the types 02"),
    ],
)
def test_types_that_the_data_do_not_have(protocol: str, types: list[str], wanted: str) -> None:
    found = ", ".join(sorted(set(types)))
    assert refused(protocol, types=types) == f"{protocol} needs {wanted}; the data have the types {found}"


def test_the_cross_view_form_looks_for_its_own_types() -> None:
    message = refused("casia-b", types=["nm-01", "nm-03", "nm-05", "nm-04"], cross_view=True)
    assert message.startswith("casia-b needs a gallery of the types nm-02, bg-02, cl-02; ")


def test_one_view() -> None:
    message = "oumvlp compares sequences of different views; the data have 1 view: 000"
    assert refused(views=["000"] * 4) == message


def test_probes_that_all_lack_a_partner() -> None:
    nobody = "has a sequence of its person in the gallery of 2 sequences: there is nothing to find"
    strangers = ["00002", "00004", "00006", "00008"]
    assert refused(labels=strangers) == f"none of the 2 probes {nobody}"
    assert refused("grew-validation", labels=strangers, types=["01", "02", "01", "02"]).endswith(nobody)
    names = [f"{label}-{type_}-{view}" for label, type_, view in zip(strangers, TYPES, VIEWS, strict=True)]
    assert refused("gait3d", labels=strangers, probes=names[:2]) == f"none of the 2 probes {nobody}"


def test_a_partner_in_the_same_view_is_none() -> None:
    assert "there is nothing to find" in refused(), "everybody's gallery sequence is of the probe's own view"


def test_probes_of_gait3d() -> None:
    names = [f"{label}-{type_}-{view}" for label, type_, view in zip(LABELS, TYPES, VIEWS, strict=True)]
    assert refused("gait3d").startswith("gait3d needs the list of its probes, names such as 1001-")
    assert refused("gait3d", probes=[]).endswith("; got none")
    assert "got 'a-b-c'" in refused("gait3d", probes="a-b-c")
    assert refused("gait3d", probes=["x-y-z"]) == (
        "none of the 1 probes is in the data: expected names such as x-y-z; "
        "got 00002-00-000, 00002-01-000, 00004-00-015, 00004-01-015"
    )
    assert refused("gait3d", probes=names) == "gait3d needs a gallery beside the probes; all 4 sequences are probes"


def test_grew_needs_probes_a_gallery_and_numbers() -> None:
    assert refused("grew") == "grew needs probes with the label probe; the data have 00002, 00004"
    labels = ["probe", "00002", "probe", "ann"]
    assert refused("grew", labels=labels) == "grew names people by numbers in its CSV; got the labels ann"
    message = refused("grew", labels=labels, types=["01", "03", "01", "03"])
    assert message == "grew needs a gallery of the types 01, 02; the data have the types 01, 03"


def test_names_are_checked_before_anything_is_embedded() -> None:
    selection = select_sequences("oumvlp", LABELS, TYPES, ["a", "b", "c", "d"], Request())
    assert (selection.probe.tolist(), selection.gallery.tolist()) == ([0, 2], [1, 3])
    for protocol, request, message in (
        ("casia-b", Request(), "casia-b needs a gallery of the types nm-01"),
        ("oumvlp", Request(rerank=True), "rerank is for gait3d"),
        ("gait3d", Request(probes=("x-y-z",)), "none of the 1 probes is in the data"),
    ):
        with pytest.raises(ValueError, match=message):
            select_sequences(protocol, LABELS, TYPES, VIEWS, request)


def test_long_lists_are_cut() -> None:
    message = refused(types=[f"t{i:02}" for i in range(12)], labels=["1"] * 12, views=["a"] * 12, vectors=many(12))
    assert message.endswith("the data have the types t00, t01, t02, t03, t04, t05, t06, t07 and 4 more")


def many(count: int) -> np.ndarray:
    return np.ones((count, 1, 2), np.float32)
