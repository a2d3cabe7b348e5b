"""What may be declared in place of what."""

import pytest
import torch

import fewstep as fs
from fewstep.checking._wiring import alternatives, declared, kinds, mistakes, rewired
from fewstep.schedules import DDPM, VP, CondOT, Cosine


def identity(x, t):
    return x


def test_other_wirings_are_listed_once_by_the_mistakes_they_take():
    own = declared(fs.Field(identity))
    single, further = alternatives(own)
    assert len({own, *single, *further}) == 1 + len(single) + len(further) == 8 * 5 * 5
    # 7 kinds, 4 clocks, 4 schedules, and minus the velocity under the three clocks that fall towards data.
    assert len(single) == 7 + 4 + 4 + 3
    assert all(mistakes(other, own) > 1 for other in further)


@pytest.mark.parametrize(
    ("field", "absent"),
    [
        (fs.Field(identity, DDPM()), VP()),  # the linear betas are those of VP, in a thousand steps
        (fs.Field(identity, VP(beta_min=0.1, beta_max=20.1)), VP()),
        (fs.Field(identity, DDPM("squared_cosine")), Cosine()),
    ],
    ids=["ddpm", "vp", "cosine"],
)
def test_schedules_that_agree_are_no_alternatives(field, absent):
    single, further = alternatives(declared(field))
    schedules = {other.schedule for other in (*single, *further)}
    assert absent not in schedules
    assert CondOT() in schedules


@pytest.mark.parametrize(("clock", "named"), [(None, DDPM("squared_cosine")), ((0, 1), Cosine())])
def test_of_two_that_agree_the_one_with_the_declared_kind_of_clock_is_named(clock, named):
    single, further = alternatives(declared(fs.Field(identity, DDPM(), clock=clock)))
    schedules = {other.schedule for other in (*single, *further)}
    assert schedules & {DDPM("squared_cosine"), Cosine()} == {named}


def test_timesteps_become_a_clock_that_any_schedule_can_tell():
    assert declared(fs.Field(identity, DDPM())).clock == (999, -1)
    single, _ = alternatives(declared(fs.Field(identity, DDPM())))
    assert (1000, 0) not in {other.clock for other in single}  # within a hundredth of it


def test_denoised_agrees_with_the_mixture_in_every_prediction():
    """Every kind of exact network says the same of the data."""
    x = torch.randn(5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    said = []
    for prediction in ("velocity", "noise", "data", "v"):
        field = fs.models.random_mixture(24, 7, schedule=Cosine(), prediction=prediction).field()
        own = declared(field)
        said.append(own.denoised(x, field.predict(x, 0.4), 0.4))
        minus = next(kind for kind in kinds(own) if kind.prediction == prediction and kind.sign < 0)
        torch.testing.assert_close(minus.denoised(x, -field.predict(x, 0.4), 0.4), said[0])
    for denoised in said[1:]:
        torch.testing.assert_close(denoised, said[0])


def test_rewired_leaves_the_field_alone():
    field = fs.Field(identity)
    other = rewired(field, next(kind for kind in kinds(declared(field)) if kind.sign < 0))
    x = torch.ones(2, 3)
    assert torch.equal(other.predict(x, 0.5), -x)
    assert torch.equal(field.predict(x, 0.5), x)


@pytest.mark.parametrize(
    ("field", "expression"),
    [
        (fs.Field(identity), "Field(model)"),
        (
            fs.Field(identity, VP(), "noise", clock=(1000, 0)),
            "Field(model, VP(), prediction='noise', clock=(1000, 0))",
        ),
        (
            fs.Field(identity, DDPM("scaled_linear"), "v"),
            "Field(model, DDPM(betas='scaled_linear'), prediction='v')",
        ),
        (fs.Field(identity, clock="sigma"), "Field(model, clock='sigma')"),
    ],
    ids=range(4),
)
def test_expressions_can_be_written_down(field, expression):
    assert declared(field).expression() == expression
    space = {name: getattr(fs.schedules, name) for name in fs.schedules.__all__}
    again = eval(expression, {"Field": fs.Field, "model": identity, **space})
    assert declared(again) == declared(field)
