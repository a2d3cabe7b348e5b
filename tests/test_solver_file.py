"""The solver file: every bit comes back, and a bad file is told in one sentence."""

from __future__ import annotations

import json

import pytest
import torch

import fewstep as fs


def random_solver(N=5, **facts):
    """A solver whose numbers use every bit of a float64."""
    generator = torch.Generator().manual_seed(0)
    C, D = torch.randn(2, N, N, dtype=torch.float64, generator=generator)
    times = torch.rand(N, dtype=torch.float64, generator=generator).sort().values
    return fs.Solver(
        times=tuple(times.tolist()),
        C=tuple(tuple(row[: i + 1]) for i, row in enumerate((C * 1e-7).tolist())),
        D=tuple(tuple(row[: i + 1]) for i, row in enumerate((D * 1e5).tolist())),
        points=(0, 2, N),
        **facts,
    )


FACTS = {
    "name": "näme",
    "end": 0.999,
    "prediction": "noise",
    "schedule": fs.schedules.VP(0.2, 15.0),
    "family": {"name": "non_stationary", "theta": [0.1, -1e-300]},
    "fitted_for": {"model": "m", "guidance": None, "shape": [1, 8, 8]},
    "protocol": {"pairs": 32, "seed": 0},
    "scores": {"rmse": 0.0123, "by_nfe": {"8": 1}},
    "citation": ("first", "second"),
}


@pytest.mark.parametrize("facts", [{}, FACTS], ids=["bare", "full"])
def test_every_bit_comes_back(tmp_path, facts):
    solver = random_solver(**facts)
    solver.save(tmp_path / "a.json")
    assert fs.Solver.load(tmp_path / "a.json") == solver
    fs.Solver.load(tmp_path / "a.json").save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("name", fs.classical.baselines(8))
def test_a_loaded_baseline_samples_the_same_bits(tmp_path, name):
    solver = fs.classical.baselines(8)[name]
    solver.save(tmp_path / "solver.json")
    loaded = fs.Solver.load(tmp_path / "solver.json")
    x0 = fs.noise(3, (2,))
    assert torch.equal(loaded.sample(lambda x, t: x.sin(), x0), solver.sample(lambda x, t: x.sin(), x0))


def test_a_person_can_read_it(tmp_path):
    """One row of a table a line, plain keys, and strict JSON."""
    fs.classical.midpoint(2).save(tmp_path / "solver.json")
    text = (tmp_path / "solver.json").read_text()
    assert "    [1.0],\n" in text

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    content = json.loads(text, parse_constant=refuse)
    assert (content["format"], content["schema"], content["nfe"]) == ("fewstep.solver", 1, 4)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(schema=3), "schema 3, but this version of fewstep reads schema 1; upgrade"),
        (lambda c: c.update(format="other"), "not a solver file; its 'format' must be 'fewstep.solver'"),
        (lambda c: c.update(speed=1, colour=2), "has unknown keys 'speed', 'colour'; a solver file has"),
        (lambda c: c.pop("D"), "lacks 'D'; a solver file has"),
        (lambda c: c.update(nfe=7), "nfe: says 7, but there are 4 times"),
        (lambda c: c["C"][1].__setitem__(0, float("nan")), "C: row 1 must be finite"),
        (lambda c: c["D"][0].__setitem__(0, "1"), "D\\[0\\]\\[0\\]: must be a number, not '1'"),
        (lambda c: c["times"].__setitem__(0, True), "times\\[0\\]: must be a number, not True"),
        (lambda c: c["times"].__setitem__(0, -1.0), "must lie in"),
        (lambda c: c["C"].pop(), "C: 4 calls need rows"),
        (lambda c: c.update(C=3), "C: must be a list, .*not 3"),
        (lambda c: c.update(points=[0, 1.5, 4]), "points\\[1\\]: must be a whole number, not 1.5"),
        (lambda c: c.update(points=[0, 3]), "points: must increase from 0 to 4"),
        (lambda c: c.update(schedule={"name": "linear"}), "schedule: must be one of .* not 'linear'"),
        (lambda c: c.update(schedule="vp"), "schedule: must be an object"),
        (lambda c: c.update(fitted_for=7), "fitted_for: must be an object, not 7"),
        (lambda c: c.update(prediction="x0"), "prediction: must be one of"),
        (lambda c: c.update(prediction="data"), "schedule: a table of data predictions"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, change, words):
    path = tmp_path / "solver.json"
    fs.classical.midpoint(2).save(path)
    edited(path, change)
    with pytest.raises(ValueError, match=words) as error:
        fs.Solver.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not json", b"[1, 2]", b'{"format"', b"\xff\xfe\x00"])
def test_what_is_no_solver_file_is_named(tmp_path, content):
    path = tmp_path / "solver.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"solver\.json: not a readable solver file \("):
        fs.Solver.load(path)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, fraction):
    path = tmp_path / "solver.json"
    random_solver().save(path)
    text = path.read_text()
    path.write_text(text[: int(len(text) * fraction)])
    with pytest.raises(ValueError, match=r"solver\.json: .* \(not complete JSON: .*write it again"):
        fs.Solver.load(path)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        fs.Solver.load(tmp_path / "none.json")


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "solver.json"
    fs.classical.euler(2).save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        random_solver(scores={"rmse": torch.tensor(1.0)}).save(path)

    def no_space(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", no_space)
        with pytest.raises(OSError, match="no space"):
            random_solver().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["solver.json"]


def test_saving_makes_the_folder_and_an_ordinary_file(tmp_path):
    path = tmp_path / "new" / "solver.json"
    fs.classical.euler(2).save(path)
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_a_solver_of_many_calls_comes_back(tmp_path):
    made = fs.classical.euler(1500)
    made.save(tmp_path / "solver.json")
    assert fs.load(tmp_path / "solver.json") == made


def test_a_name_that_could_not_be_read_again_is_not_written(tmp_path):
    made = fs.classical.euler(2)
    with pytest.raises(ValueError, match=r"solver\.json: not written, as it could not be read again"):
        fs.Solver(made.times, made.C, made.D, made.points, name="\ud800").save(tmp_path / "solver.json")
    assert not list(tmp_path.iterdir())
