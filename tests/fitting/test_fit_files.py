"""Files of fits, and what is read back."""

from __future__ import annotations

import json

import pytest
import torch

import fewstep as fs
from fewstep.families import SmoothCorrections
from fewstep.fitting import GaussNewton

pytestmark = pytest.mark.all_rivals

FEW = {"pairs": 8, "optimizer": GaussNewton(2)}
CURVE = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)


def bend(x, t):
    return 0.9 * torch.sin(x.roll(1, dims=1) + 2 * t[:, None])


def weak(x, t):
    return 0.8 * torch.sin(x.roll(1, dims=1) + t[:, None])


FIELD = fs.Field(bend, shape=(3,), guide=weak, name="bend")
SMOOTH = SmoothCorrections("deis2", FIELD.schedule, degree=1, terms=1, differences=0, startup=1)
#: Arguments of a fit, and places to take solvers from.
KINDS = {
    "non_stationary": ({"nfe": 3}, [{}]),
    "timesteps": ({"nfe": 3, "family": "timesteps"}, [{}, {"nfe": 3}]),
    "scale_time": ({"nfe": 4, "family": "scale_time"}, [{}]),
    "curve": ({"nfe": (3, 5), "family": CURVE}, [{"nfe": 3}, {"nfe": 4}, {"nfe": 9}]),
    "smooth": ({"nfe": (3, 4), "family": SMOOTH}, [{"nfe": 3}, {"nfe": 6}]),
    "scales": (
        {"nfe": 2, "guidance": (1, 4)},
        [{"guidance": 1}, {"guidance": 1.3}, {"nfe": 2, "guidance": 4}],
    ),
    "guided_curve": ({"nfe": (2, 4), "guidance": (1, 3), "family": SMOOTH}, [{"nfe": 3, "guidance": 2}]),
    "fields": ({"nfe": 3, "field": [FIELD, FIELD]}, [{}]),
}


@pytest.fixture(scope="module")
def fits():
    return {name: fs.fit(**{"field": FIELD, **FEW, **options}) for name, (options, _) in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_comes_back(fits, tmp_path, kind):
    fit, path = fits[kind], tmp_path / "fit.json"
    fit.save(path)
    loaded = fs.load(path)
    assert isinstance(loaded, fs.Fit)
    assert loaded.report == fit.report
    assert loaded.fitted_for == fit.fitted_for
    assert (loaded.theta is None) == (fit.theta is None)
    assert fit.theta is None or torch.equal(loaded.theta, fit.theta)
    for place in KINDS[kind][1]:
        assert loaded.at(**place) == fit.at(**place)
        x0 = fs.noise(2, (3,))
        field = FIELD.with_guidance(place.get("guidance"))
        assert torch.equal(loaded.at(**place).sample(field, x0), fit.at(**place).sample(field, x0))
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert fs.Fit.load(path).report == fit.report
    assert json.loads(path.read_text())["format"] == "fewstep.fit"


def test_load_tells_solvers_from_fits(fits, tmp_path):
    solver = fits["non_stationary"].solver
    solver.save(tmp_path / "solver.json")
    again = fs.load(tmp_path / "solver.json")
    assert isinstance(again, fs.Solver)
    assert (again.times, again.C, again.D) == (solver.times, solver.C, solver.D)
    with pytest.raises(ValueError, match="not a fit file; its 'format' must be"):
        fs.Fit.load(tmp_path / "solver.json")
    fits["curve"].save(tmp_path / "fit.json")
    with pytest.raises(ValueError, match="not a solver file"):
        fs.Solver.load(tmp_path / "fit.json")


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("curve", {"schema": 2}, "written with schema 2, .* reads schema 1; upgrade fewstep"),
        ("curve", {"more": 1}, "has unknown keys 'more'"),
        ("curve", {"theta": [0.0]}, r"theta: these solvers have \d+ numbers, not 1"),
        ("curve", {"theta": "zero"}, "fit.json: "),
        ("curve", {"theta": [float("nan")]}, "theta: must be finite numbers"),
        ("curve", {"theta": None}, "fit.json: "),
        ("curve", {"family": {"name": "smooth_corrections", "base": "none"}}, "fit.json: "),
        ("curve", {"family": {"name": "bend"}}, "one of smooth_corrections, guided, not 'bend'"),
        ("curve", {"family": {"base": "ab2"}}, "family.name: must be text, not None"),
        ("curve", {"family": 3}, "fit.json: "),
        ("curve", {"report": {}}, "fit.json: "),
        ("curve", {"report": None}, "fit.json: "),
        ("scales", {"family": {"name": "guided", "low": 1}}, "fit.json: "),
        ("non_stationary", {"solver": {}}, "fit.json: "),
        ("non_stationary", {"solver": None}, "fit.json: "),
        ("guided_curve", {"theta": [[0.0]]}, "fit.json: "),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(fits, tmp_path, kind, change, words):
    path = tmp_path / "fit.json"
    fits[kind].save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words) as raised:
        fs.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["report", "fitted_for", "theta", "family", "solver"])
def test_a_file_that_lacks_something_is_told_too(fits, tmp_path, key):
    path = tmp_path / "fit.json"
    fits["non_stationary" if key == "solver" else "curve"].save(path)
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"lacks '{'theta' if key == 'solver' else key}'"):
        fs.load(path)


def test_a_file_that_is_cut_off_missing_or_something_else_is_named(fits, tmp_path):
    path = tmp_path / "fit.json"
    for load in (fs.load, fs.Fit.load):
        with pytest.raises(FileNotFoundError, match=r"there is no such .* file"):
            load(path)
    fits["curve"].save(path)
    path.write_text(path.read_text()[:-40])
    for load in (fs.load, fs.Fit.load):
        with pytest.raises(ValueError, match="not complete JSON"):
            load(path)
    path.write_text("[1, 2]")
    for load in (fs.load, fs.Fit.load):
        with pytest.raises(ValueError, match="must hold one JSON object, not list"):
            load(path)
