from pathlib import Path

from matplotlib import image

import fewstep as fs


def test_demo_writes_every_file_that_it_lists(program):
    result = program("demo", "digits", "--nfe", 4, "--pairs", 8, "--count", 8, "--out", "here", "--json")
    assert {Path(file).name for file in result["files"]} == {
        "digits-4.json",
        "results.json",
        "results.csv",
        "results.md",
        "index.html",
        "error-against-nfe.png",
        "coefficients-4.png",
        "samples-4.png",
    }
    for file in map(Path, result["files"]):
        assert file.parent == Path("here")
        if file.suffix == ".png":
            assert image.imread(file).size > 1000
    assert fs.Solver.load("here/digits-4.json").nfe == 4
    assert {row["solver"] for row in result["rows"]} == {
        "euler",
        "heun",
        "midpoint",
        "dpmpp_2m",
        "fitted non_stationary",
    }


def test_demo_of_a_model_without_pictures_ends_in_words(program, few_rivals):
    text = program("demo", "mixture", "--nfe", "2,3", "--pairs", 8, "--count", 8, "--max-calls", 5000)
    assert "8 fresh noises" in text
    assert "wrote fewstep-demo-mixture/mixture-2.json" in text
    assert "next: fewstep sample mixture fewstep-demo-mixture/mixture-3.json" in text
    assert not Path("fewstep-demo-mixture/samples-3.png").exists()
    assert Path("fewstep-demo-mixture/coefficients-3.png").exists()
