"""Searching families and numbers of calls, within a budget, and what is recommended."""

from __future__ import annotations

import json

import pytest

import fewstep as fs
from fewstep.fitting import Search
from fewstep.report import front


def row(nfe, psnr, kind="fitted"):
    return {"solver": f"{kind}-{nfe}", "kind": kind, "nfe": nfe, "psnr": psnr, "rmse": 10 ** (-psnr / 20)}


def found(*rows):
    return Search({}, tuple(rows), {}, ())


@pytest.fixture(scope="module")
def digits():
    return fs.search(fs.models.bundled("digits"), (4, 3), pairs=16, test=16, seed=5)


def test_every_number_of_calls_gets_its_best_fit(digits):
    assert set(digits.fits) == {3, 4}
    tried = [(entry["family"], entry["nfe"]) for entry in digits.tried]
    assert tried == [("non_stationary", 3), ("non_stationary", 4), ("scale_time", 4)]
    best = max((e for e in digits.tried if e["nfe"] == 4), key=lambda e: e["validation_psnr"])
    assert digits.fits[4].report.family == best["family"]
    assert [(r["nfe"], r["kind"]) for r in digits.rows] == [
        (3, "fitted"), (4, "fitted"), (3, "classical"), (4, "classical"),
    ]  # fmt: skip


def test_scores_are_those_of_fresh_noises(digits):
    field = fs.models.bundled("digits")
    fresh = fs.reference.pairs(field, fs.noise(16, (1, 8, 8), seed=5, start=16), rtol=1e-6, atol=1e-6)
    (expected,) = fs.compare(field, [digits.fits[4].solver], noise=fresh).rows
    measured = next(r for r in digits.rows if r["kind"] == "fitted" and r["nfe"] == 4)
    assert measured["rmse"] == pytest.approx(expected["rmse"], rel=1e-6)


def test_every_network_call_is_counted(counted):
    field = fs.models.bundled("digits")
    network = counted(field.model)
    calls = 0

    def watched(x, t):
        nonlocal calls
        calls += len(x)
        return network(x, t)

    # The reference of the error estimate is counted, too.
    result = fs.search(fs.Field(watched, shape=(1, 8, 8)), (3,), pairs=8, test=8)
    assert sum(result.calls.values()) == calls


def test_the_budget_is_kept():
    field = fs.models.bundled("digits")
    result = fs.search(field, (3, 4), pairs=16, test=16, max_calls=20_000)
    assert sum(result.calls.values()) <= 20_000
    assert result.fits
    with pytest.raises(ValueError, match="max_calls=6000 leaves nothing for any fit"):
        fs.search(field, (3, 4), pairs=16, test=16, max_calls=6_000)


def test_the_front_holds_what_nothing_with_as_few_calls_beats():
    rows = found(row(4, 30), row(4, 25, "classical"), row(6, 29), row(8, 40), row(8, 38, "classical"))
    assert [(r["nfe"], r["psnr"]) for r in rows.front] == [(4, 30), (8, 40)]


def test_a_call_is_taken_while_it_gains_a_decibel():
    rows = found(row(4, 30), row(5, 33), row(6, 33.5), row(8, 50))
    assert rows.recommend()["nfe"] == 5
    assert rows.recommend(psnr=33.2)["nfe"] == 6
    assert found(row(4, 30), row(6, 32)).recommend()["nfe"] == 6
    with pytest.raises(ValueError, match=r"nothing tried reaches 60 dB; the best is fitted-8 with 8 calls"):
        rows.recommend(psnr=60)


def test_words_name_what_the_classical_solvers_need():
    rows = found(row(4, 30), row(4, 20, "classical"), row(8, 31, "classical"))
    assert "the best classical solver needs 8" in rows.words(30)
    assert "no classical solver gets there with 4 calls" in found(row(4, 30), row(4, 20, "classical")).words()


def test_the_result_prints_plots_and_turns_into_json(digits):
    assert "take " in str(digits)
    content = json.loads(digits.to_json())
    assert content["recommended"]["nfe"] in (3, 4)
    assert len(front(digits).axes[0].lines) == 2


def test_nothing_to_search_is_an_error():
    with pytest.raises(ValueError, match="nfe is empty"):
        fs.search(fs.models.bundled("digits"), ())


@pytest.mark.parametrize("kinds", [("classical",), ("fitted", "classical")])
def test_a_solver_that_fails_on_the_test_noises_is_a_note(kinds, monkeypatch):
    def failing(field, solvers, **options):
        (row,) = fs.compare(field, solvers, **options).rows
        kind = "fitted" if "non_stationary" in row["solver"] else "classical"
        return fs.Comparison(({**row, **({"failure": "why"} if kind in kinds else {})},), ("psnr",), {})

    monkeypatch.setattr("fewstep.fitting._search.compare", failing)
    options = {"families": ("non_stationary",), "pairs": 8, "test": 8}
    if "fitted" in kinds:
        with pytest.raises(FloatingPointError, match=r"no solver gives finite samples .* failed: why"):
            fs.search(fs.models.bundled("digits"), (3,), **options)
        return
    found = fs.search(fs.models.bundled("digits"), (3,), **options)
    assert [row["kind"] for row in found.rows] == ["fitted"]
    assert found.notes[-1].endswith(" with 3 calls failed: why")
