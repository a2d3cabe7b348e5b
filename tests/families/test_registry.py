"""The list of families: each makes solvers that carry its name, and whom to cite."""

import pytest

import fewstep as fs
from fewstep.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_makes_solvers_of_its_name_from_its_start(name):
    field = fs.models.bundled("digits")
    member = FAMILIES[name]((4,), None, field).member(4)
    solver = member.solver()
    assert solver.nfe == 4
    assert solver.family["name"] == name
    assert all("20" in entry for entry in solver.citation)
    plain = fs.classical.named(member.own.start, 4, field.schedule)
    x0 = fs.noise(2, field.shape)
    assert float((solver.sample(field, x0) - plain.sample(field, x0)).abs().max()) < 1e-5
