"""A fitted solver on another model, schedule or guidance scale than its own says so, once."""

from __future__ import annotations

import functools
import json
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.schedules import VP, Cosine

pytestmark = pytest.mark.usefixtures("few_rivals")


class Net(nn.Module):
    def forward(self, x, t, c=1.0):
        return -c * x


class Other(Net):
    pass


def field(model=None, **options):
    options = {"guidance": 2.0, "unconditional": {"c": 0.0}, "shape": (2,), **options}
    model = model or Net()
    return fs.Field(model.eval() if isinstance(model, nn.Module) else model, **options)


FITTED = replace(fs.classical.euler(2), name="mine", fitted_for=field().describe())
X0 = torch.ones(1, 2)


def heard(solver, *fields):
    """The warnings of sampling the fields, one after another."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for one in fields:
            solver.sample(one, X0)
    assert all(w.category is UserWarning and w.filename == __file__ for w in found)
    return [str(w.message) for w in found]


@pytest.mark.parametrize(
    "same",
    [
        field(),
        field(shape=(3,)),
        field(clock=(1000, 0)),
        field(lambda x, t, c=1.0: -x),  # may be any model
        field(functools.partial(Net(), c=1.0)),
        field(nn.DataParallel(Net())),
        field(Net().forward),
        field(guidance=2),
    ],
)
def test_what_it_was_fitted_for_is_sampled_in_silence(same):
    assert FITTED.mismatch(same) is None
    assert not heard(FITTED, same)
    assert not heard(fs.classical.euler(2), same)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (field(guidance=3.0), "was fitted for guidance 2, but this field has guidance 3"),
        (field(guidance=None), "guidance 2, but this field has guidance None"),
        (field(schedule=VP()), r"schedule cond_ot\(\), but this field has schedule vp\(beta_min=0.1"),
        (field(Other()), "model Net, but this field has model Other"),
        (field(name="x", guidance=4), "guidance 2, but this field has guidance 4"),
        (field(guidance_rescale=0.7), "guidance_rescale None, but this field has guidance_rescale 0.7"),
        (field(schedule=VP(1.0)), r"has schedule vp\(beta_min=1, beta_max=20\)"),
    ],
)  # fmt: skip
def test_anything_else_is_named_once(other, words):
    solver = replace(FITTED)
    (said,) = heard(solver, other, other)
    assert said.startswith("solver 'mine' was fitted for")
    assert "fit again" in said
    with pytest.warns(UserWarning, match=words):
        replace(FITTED).sample(other, X0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "solver")  # as the sentence says
        replace(FITTED).sample(other, X0)


def test_the_guidance_scale_one_is_none():
    """A solver read off a fit at scale 1 says 1, and a field at scale 1 says ``None``."""
    solver = replace(FITTED, fitted_for={**field().describe(), "guidance": 1.0})
    assert solver.mismatch(field(guidance=1)) is None


def test_every_difference_is_told_of_one_solver():
    assert len(heard(replace(FITTED), field(guidance=3), field(), field(guidance=5))) == 2


def test_one_schedule_with_other_numbers_is_another():
    solver = replace(FITTED, fitted_for=field(schedule=VP()).describe())
    assert solver.mismatch(field(schedule=VP())) is None
    assert "schedule vp" in solver.mismatch(field(schedule=VP(0.2)))


def test_a_file_remembers_it(tmp_path):
    for schedule in (VP(), Cosine(), fs.schedules.DDPM(), fs.schedules.VE()):
        fitted = replace(FITTED, fitted_for=field(schedule=schedule).describe())
        fitted.save(tmp_path / "solver.json")
        loaded = fs.Solver.load(tmp_path / "solver.json")
        assert loaded.mismatch(field(schedule=schedule)) is None
        assert "guidance" in loaded.mismatch(field(schedule=schedule, guidance=3))
        said = loaded.mismatch(field())
        assert len(said) < 300  # no tables of a thousand numbers
    assert json.loads((tmp_path / "solver.json").read_text()) == json.loads(json.dumps(fitted.to_dict()))


def test_a_solver_of_several_fields_fits_each_of_them():
    facts = {**field(name="a").describe(), "also": [field(name="b", guidance=5).describe()]}
    solver = replace(FITTED, fitted_for=facts)
    for known in (field(name="a"), field(name="b", guidance=5)):
        assert solver.mismatch(known) is None
    said = solver.mismatch(field(name="b", guidance=3))  # the nearer one is named
    assert said == "solver 'mine' was fitted for guidance 5, but this field has guidance 3"
    said = solver.mismatch(field(name="b", guidance=5, schedule=VP()))
    assert "fitted for schedule cond_ot(), but" in said


def test_an_old_or_hand_written_file_is_compared_in_what_it_has():
    assert replace(FITTED, fitted_for={"guidance": 2.0}).mismatch(field(Other())) is None
    assert replace(FITTED, fitted_for={}).mismatch(field(Other(), guidance=7)) is None


def test_a_solver_follows_its_field_to_another_schedule():
    """Fitted in the coordinates of VE, sampled on VP: what ``reschedule`` is for."""
    plain = field(schedule=VP())
    moved = plain.reschedule(fs.schedules.VE(rho=1))
    for facts in (moved.describe(), field(schedule=fs.schedules.VE(rho=1)).describe()):
        solver = replace(fs.classical.heun(grid=(0, 0.3, 0.8, 0.9)), fitted_for=facts)
        assert solver.reschedule(fs.schedules.VE(rho=1), VP()).mismatch(plain) is None


def test_inspection_and_fits_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver = fs.fit(field(), 2, pairs=4).solver
        fs.inspect(solver)
        fs.fit(field(guidance=3), 2, pairs=4, init=solver)
