"""Published protocols against the field's evaluator, against loops that spell them out, and by hand."""

import json
from typing import Any

import numpy as np
import pytest

from hstl_fast.evaluation import PROTOCOLS, evaluate
from hstl_fast.evaluation.protocols import Request, by_view, run_protocol
from tests.evaluation import naive
from tests.evaluation.naive import Case
from tests.golden import recipe

# The field's evaluator rounds every cell of a table to 0.01 before it averages.
ROUNDED = 0.01
CASIA_B = {"NM": ["nm-05", "nm-06"], "BG": ["bg-01", "bg-02"], "CL": ["cl-01", "cl-02"]}
CASIA_B_GALLERY = ["nm-01", "nm-02", "nm-03", "nm-04"]
METRICS = ["euclidean", "cosine"]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return recipe.load("evaluation")


def arguments(golden: dict[str, np.ndarray], protocol: str) -> tuple[Any, ...]:
    return tuple(golden[f"{protocol}/{name}"] for name in ("embeddings", "labels", "types", "views"))


@pytest.mark.parametrize(("metric", "short"), [("euclidean", "euc"), ("cosine", "cos")])
def test_casia_b_is_that_of_the_fields_evaluator(golden: dict[str, np.ndarray], metric: str, short: str) -> None:
    found = evaluate("casia-b", *arguments(golden, "casia-b"), metric=metric)
    rates = {name: value["rank1"] for name, value in found["results"].items()}
    for name in CASIA_B:
        assert rates[name] == pytest.approx(golden[f"casia-b/{short}_{name}"], abs=ROUNDED)
    assert rates["mean"] == pytest.approx((rates["NM"] + rates["BG"] + rates["CL"]) / 3)
    assert found["views"] == [f"{view:03}" for view in range(0, 181, 18)]
    assert found["counts"] == {"people": 12, "probes": 744, "gallery": 496, "probes_without_partner": 0}
    if metric == "euclidean":
        for name in CASIA_B:
            assert np.allclose(found["tables"][name], golden[f"casia-b/euc_table_{name}"], rtol=0, atol=ROUNDED)


def test_cross_view_is_that_of_the_fields_evaluator(golden: dict[str, np.ndarray]) -> None:
    results = evaluate("casia-b", *arguments(golden, "casia-b"), cross_view=True)["results"]
    for name in CASIA_B:
        assert results[name]["rank1"] == pytest.approx(golden[f"casia-b/cross_view_{name}-Rank@1"], abs=ROUNDED)
        assert results[name]["mAP"] == pytest.approx(golden[f"casia-b/cross_view_{name}-mAP"], abs=ROUNDED)
    for measure in ("rank1", "mAP"):
        assert results["mean"][measure] == pytest.approx(np.mean([results[name][measure] for name in CASIA_B]))


def test_oumvlp_is_that_of_the_fields_evaluator(golden: dict[str, np.ndarray]) -> None:
    results = evaluate("oumvlp", *arguments(golden, "oumvlp"))["results"]
    assert results["all_probes"]["rank1"] == pytest.approx(golden["oumvlp/euc_NM"], abs=ROUNDED)
    assert results["with_partner"]["rank1"] > results["all_probes"]["rank1"] + 1


def test_gait3d_is_that_of_the_fields_evaluator(golden: dict[str, np.ndarray]) -> None:
    found = evaluate("gait3d", *arguments(golden, "gait3d"), probes=golden["gait3d/probes"])
    names = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mAP": "mAP", "mINP": "mINP"}
    assert found["results"] == {name: pytest.approx(golden[f"gait3d/{theirs}"]) for name, theirs in names.items()}
    assert found["counts"] == {"people": 30, "probes": 34, "gallery": 100, "probes_without_partner": 2}


def test_grew_validation_is_that_of_the_fields_evaluator(golden: dict[str, np.ndarray]) -> None:
    results = evaluate("grew-validation", *arguments(golden, "grew-validation"))["results"]
    assert results["rank1"] == pytest.approx(golden["grew-validation/Rank-1"])
    assert results["rank5"] == pytest.approx(golden["grew-validation/Rank-5"])
    assert list(results) == ["rank1", "rank5", "rank10", "rank20"]


def test_grew_writes_the_rows_of_the_fields_evaluator(golden: dict[str, np.ndarray]) -> None:
    found = evaluate("grew", *arguments(golden, "grew-submission"))
    assert found["tables"]["header"] == golden["grew-submission/header"].tolist()
    assert found["tables"]["rows"] == golden["grew-submission/rows"].tolist()
    assert found["counts"] == {"people": 30, "probes": 25, "gallery": 60, "probes_without_partner": None}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_documents_have_one_form_and_json_holds_them(golden: dict[str, np.ndarray], protocol: str) -> None:
    key = "grew-submission" if protocol == "grew" else protocol
    probes = golden["gait3d/probes"] if protocol == "gait3d" else None
    document = evaluate(protocol, *arguments(golden, key), probes=probes)
    assert list(document) == ["protocol", "metric", "counts", "results", "tables", "views"]
    assert list(document["counts"]) == ["people", "probes", "gallery", "probes_without_partner"]
    assert (document["protocol"], document["metric"]) == (protocol, "euclidean")
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_curves_begin_with_the_tables_rank_1(golden: dict[str, np.ndarray]) -> None:
    for cross_view in (False, True):
        request = Request(curves=True, cross_view=cross_view)
        outcome = run_protocol("casia-b", *arguments(golden, "casia-b"), request)
        for name, curve in outcome.curves.items():
            assert curve[0] == pytest.approx(outcome.results[name]["rank1"])
            assert curve == sorted(curve)
        assert list(outcome.curves) == list(CASIA_B)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_casia_b_is_what_loops_find(seed: int, metric: str) -> None:
    types = [*CASIA_B_GALLERY[:2], *(each for both in CASIA_B.values() for each in both)]
    case = naive.random_case(seed, types, ["000", "018", "090"], missing=0.3)
    found = evaluate("casia-b", *case, metric=metric)
    assert found["views"] == ["000", "018", "090"]
    curves = run_protocol("casia-b", *case, Request(metric, curves=True)).curves
    for name, wanted in CASIA_B.items():
        table = naive.table(case, wanted, CASIA_B_GALLERY, found["views"], metric, partners_only=False)
        assert found["tables"][name] == [pytest.approx(row) for row in table]
        assert found["results"][name]["rank1"] == pytest.approx(naive.mean_of(table))
        for rank in (2, 4, 20):
            table = naive.table(case, wanted, CASIA_B_GALLERY, found["views"], metric, partners_only=False, rank=rank)
            assert curves[name][rank - 1] == pytest.approx(naive.mean_of(table))


@pytest.mark.parametrize("seed", range(4))
def test_oumvlp_is_what_loops_find(seed: int) -> None:
    views = ["000", "015", "030", "045"]
    case = naive.random_case(seed, ["00", "01"], views, missing=0.4)
    found = evaluate("oumvlp", *case)
    for name in ("all_probes", "with_partner"):
        table = naive.table(case, ["00"], ["01"], views, "euclidean", partners_only=name == "with_partner")
        assert [[None if v is None else pytest.approx(v) for v in row] for row in table] == found["tables"][name]
        assert found["results"][name]["rank1"] == pytest.approx(naive.mean_of(table))


@pytest.mark.parametrize("seed", range(4))
def test_cross_view_is_what_loops_find(seed: int) -> None:
    types = [f"{condition}-0{n}" for condition in ("nm", "bg", "cl") for n in (1, 2)]
    views = ["000", "018", "036"]
    case = naive.random_case(seed, types, views, missing=0.3)
    found = evaluate("casia-b", *case, cross_view=True)
    for name in CASIA_B:
        by_view: dict[str, list[list[bool]]] = {}
        for i in naive.indices(case, lambda _, t, v, name=name: t == f"{name.lower()}-01"):
            label, view = case.labels[i], case.views[i]
            gallery = naive.indices(
                case, lambda p, t, v, me=(label, view): t in ("nm-02", "bg-02", "cl-02") and (p, v) != me
            )
            by_view.setdefault(view, []).append(naive.ranking(case, i, gallery, "euclidean"))
        rank1 = [naive.mean([100.0 * ranked[0] for ranked in by_view[view]]) for view in views]
        precision = [naive.mean([100 * naive.average_precision(r) for r in by_view[view]]) for view in views]
        assert found["tables"][name] == {"rank1": pytest.approx(rank1), "mAP": pytest.approx(precision)}
        assert found["results"][name] == {
            "rank1": pytest.approx(naive.mean(rank1)),
            "mAP": pytest.approx(naive.mean(precision)),
        }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(4))
def test_gait3d_is_what_loops_find(seed: int, metric: str) -> None:
    case = naive.random_case(seed, ["camid0_videoid0", "camid1_videoid0"], ["seq0", "seq1"], people=9, missing=0.3)
    probes = naive.indices(case, lambda p, t, v: (t, v) == ("camid0_videoid0", "seq0") or p == "003")
    gallery = [i for i in range(len(case.labels)) if i not in probes]
    names = ["-".join((case.labels[i], case.types[i], case.views[i])) for i in probes]
    found = evaluate("gait3d", *case, metric=metric, probes=names)
    rankings = [naive.ranking(case, i, gallery, metric) for i in probes]
    rankings = [ranked for ranked in rankings if any(ranked)]
    assert 0 < len(rankings) < len(probes)
    assert found["counts"]["probes_without_partner"] == len(probes) - len(rankings)
    assert found["results"] == {
        **{f"rank{k}": pytest.approx(naive.mean([100.0 * any(r[:k]) for r in rankings])) for k in (1, 5, 10)},
        "mAP": pytest.approx(naive.mean([100 * naive.average_precision(r) for r in rankings])),
        "mINP": pytest.approx(naive.mean([100 * naive.inverse_negative_penalty(r) for r in rankings])),
    }


@pytest.mark.parametrize("seed", range(3))
def test_grew_validation_is_what_loops_find(seed: int) -> None:
    case = naive.random_case(seed, ["01", "02"], ["a"], people=30, missing=0.3)
    probes, gallery = (naive.indices(case, lambda _, t, v, wanted=wanted: t == wanted) for wanted in ("02", "01"))
    rankings = [naive.ranking(case, i, gallery, "euclidean") for i in probes]
    found = evaluate("grew-validation", *case)
    assert found["results"] == {
        f"rank{k}": pytest.approx(naive.mean([100.0 * any(r[:k]) for r in rankings])) for k in (1, 5, 10, 20)
    }
    assert found["counts"]["probes_without_partner"] == sum(not any(ranked) for ranked in rankings) > 0


def at(*places: float) -> np.ndarray:
    """Embeddings `[N, 1, 1]`: points on a line."""
    return np.array(places, np.float32).reshape(-1, 1, 1)


def test_of_equally_near_sequences_the_first_is_taken() -> None:
    for labels, rate in ((["p", "p", "q"], 100.0), (["p", "q", "p"], 0.0)):
        found = evaluate("oumvlp", at(0, 1, -1), labels, ["00", "01", "01"], ["a", "b", "b"])
        assert found["tables"]["all_probes"] == [[None, rate], [None, None]]


def test_a_view_that_one_person_lacks() -> None:
    """Person q has no gallery sequence in view b: wrong among all probes, not counted with a partner."""
    names = [("p", "00", "a"), ("q", "00", "a"), ("p", "01", "b"), ("p", "00", "b"), ("p", "01", "a"), ("q", "01", "a")]
    found = evaluate("oumvlp", at(0, 9, 1, 0, 1, 9), *([name[i] for name in names] for i in range(3)))
    assert found["tables"] == {
        "all_probes": [[100.0, 50.0], [100.0, 100.0]],
        "with_partner": [[100.0, 100.0], [100.0, 100.0]],
    }
    assert found["results"] == {"all_probes": {"rank1": 75.0}, "with_partner": {"rank1": 100.0}}
    assert found["counts"] == {"people": 2, "probes": 3, "gallery": 3, "probes_without_partner": 1}


def test_matches_by_hand() -> None:
    """One probe, matches at ranks 1, 3 and 4: AP = (1 + 2/3 + 3/4) / 3, and INP = 3/4."""
    found = evaluate(
        "gait3d", at(0, 1, 2, 3, 4, 5), list("ppqppq"), ["t"] * 6, list("012345"), probes=["p-t-0", "p-t-9"]
    )
    average = (1 + 2 / 3 + 3 / 4) / 3
    assert found["results"] == {
        **dict.fromkeys(("rank1", "rank5", "rank10"), 100.0),
        "mAP": pytest.approx(100 * average),
        "mINP": 75.0,
    }


def test_a_gallery_that_is_smaller_than_the_rank() -> None:
    labels, types = ["p", "q", "s", "t", "u", "p", "q", "r"], ["01"] * 5 + ["02"] * 3
    outcome = run_protocol("grew-validation", at(0, 1, 2, 3, 4, 1, 0, 2), labels, types, [""] * 8, Request())
    assert outcome.results == {"rank1": 0.0, **dict.fromkeys(("rank5", "rank10", "rank20"), pytest.approx(200 / 3))}
    assert outcome.remarks == ("The gallery has only 5 sequences: rank-10 and rank-20 find whoever is in it.",)


def test_a_submission_from_a_small_gallery_has_empty_cells() -> None:
    found = evaluate("grew", at(0, 1, 0.2), ["00007", "00012", "probe"], ["01", "02", "03"], ["x", "x", "video7"])
    assert found["tables"]["rows"] == [["video7", "7", "12", *[""] * 18]]
    assert len(found["tables"]["header"]) == 21


@pytest.mark.parametrize(
    ("protocol", "types", "probes"),
    [("casia-b", ("nm-01", "nm-05"), None), ("oumvlp", ("01", "00"), None), ("gait3d", ("a", "b"), ["p-b-y"])],
)
def test_one_person_alone_has_no_rank_1(protocol: str, types: tuple[str, str], probes: list[str] | None) -> None:
    """Any network finds the only person there is."""
    case = Case(at(0, 1, 5), ["p"] * 3, [types[0], types[1], types[0]], ["x", "y", "y"])
    outcome = run_protocol(protocol, *case, Request(probes=tuple(probes) if probes else None))
    assert outcome.counts["people"] == 1
    numbers = [number for value in outcome.results.values() for number in (value or {"": None}).values()]
    assert numbers
    assert set(numbers) == {None}
    assert outcome.document()["results"] == evaluate(protocol, *case, probes=probes)["results"]
    assert outcome.remarks[-1].startswith("All probes and all of the gallery show one person, p: ")


def test_a_condition_without_probes_is_not_averaged() -> None:
    case = Case(at(0, 1, 0, 1), ["p", "q", "p", "q"], ["nm-01", "nm-01", "nm-05", "bg-01"], ["a", "a", "b", "b"])
    outcome = run_protocol("casia-b", *case, Request())
    assert outcome.results == {
        "NM": {"rank1": 100.0},
        "BG": {"rank1": 100.0},
        "CL": {"rank1": None},
        "mean": {"rank1": None},
    }
    assert outcome.remarks == (
        "No sequence has the type bg-02 or cl-01 or cl-02 or nm-02 or nm-03 or nm-04 or nm-06, which casia-b uses.",
    )


def test_people_are_the_same_however_their_names_are_composed() -> None:
    labels = ["ren\u00e9", "zoe", "rene\u0301", "zoe"]
    found = evaluate("grew-validation", at(0, 9, 1, 8), labels, ["01", "01", "02", "02"], [""] * 4)
    assert (found["counts"]["people"], found["results"]["rank1"]) == (2, 100.0)
    probes = [f"{labels[i]}-02-" for i in (0, 3)]
    assert evaluate("gait3d", at(0, 9, 1, 8), labels, ["01", "01", "02", "02"], [""] * 4, probes=probes) == {
        **found,
        "protocol": "gait3d",
        "results": dict.fromkeys(("rank1", "rank5", "rank10", "mAP", "mINP"), 100.0),
    }


def test_views_are_ordered_by_their_number() -> None:
    case = Case(at(0, 1, 0, 1), ["p", "q", "p", "q"], ["00", "00", "01", "01"], ["90", "100", "100", "15"])
    assert evaluate("oumvlp", *case)["views"] == ["15", "90", "100"]


def test_the_number_of_probes_at_a_time_changes_nothing(
    golden: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate("oumvlp", *arguments(golden, "oumvlp"))
    monkeypatch.setattr(by_view, "_PROBES_AT_ONCE", 200)
    seen = []
    assert evaluate("oumvlp", *arguments(golden, "oumvlp"), progress=lambda *each: seen.append(each)) == whole
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == (seen[0][0], 502, 502)
