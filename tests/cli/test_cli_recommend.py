import pytest

import fewstep as fs

pytestmark = pytest.mark.usefixtures("few_rivals")


def test_auto_writes_the_best_solver_at_every_number_of_calls(program):
    result = program("fit", "digits", "--nfe", "2-3", "--family", "auto", "--pairs", 8, "--json")
    assert [fs.Solver.load(file).nfe for file in result["files"]] == [2, 3]
    assert result["recommended"]["nfe"] in (2, 3)
    assert {row["kind"] for row in result["rows"]} == {"fitted", "classical"}


def test_auto_says_what_to_take_and_where_it_is(program, tmp_path):
    text = program("fit", "digits", "--nfe", "2", "--family", "auto", "--pairs", 8)
    assert "take " in text
    assert "next: fewstep recommend digits solvers/fewstep-digits-" in text
    assert (tmp_path / "solvers" / "front" / "search.json").is_file()
    assert (tmp_path / "solvers" / "front" / "front.png").stat().st_size > 5_000


def test_recommend_takes_the_fewest_calls_that_are_enough(program):
    options = ("recommend", "digits", "euler", "midpoint", "--nfe", "2-16", "--count", 8)
    result = program(*options, "--psnr", 25, "--json")
    enough = [row for row in result["rows"] if row["psnr"] >= 25]
    assert result["recommended"]["nfe"] == min(row["nfe"] for row in enough)
    assert "reaches" in program(*options, "--psnr", 25)


@pytest.mark.parametrize("psnr", [90.0])
def test_recommend_says_when_nothing_is_enough(program, psnr):
    text = program("recommend", "digits", "euler", "--nfe", "2-4", "--count", 4, "--psnr", psnr)
    assert "none of them reaches 90 dB; the nearest is euler with 4 calls" in text


def test_recommend_passes_over_a_solver_that_fails(program, tmp_path):
    (tmp_path / "hole.py").write_text(
        "import fewstep as fs\n"
        "field = fs.Field(lambda x, t: -x.where(t[0] != 0.5, float('nan')), shape=(2,), name='hole')\n"
    )
    text = program("recommend", "hole.py:field", "euler", "--nfe", "2,3", "--count", 4, "--psnr", 90)
    assert "euler with 2 calls failed: the network returned NaN" in text
    assert "none of them reaches 90 dB; the nearest is euler with 3 calls" in text
    text = program("recommend", "hole.py:field", "euler", "--nfe", "2", "--count", 4)
    assert text.endswith("none of them reaches 35 dB\n")
