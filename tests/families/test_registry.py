"""The list of families: names as they stand in solver files, each with whom to cite."""

import pytest

from fewstep.families import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_its_name_and_a_citation(name):
    assert FAMILIES[name].name == name
    assert all("20" in entry for entry in FAMILIES[name].citation)
    assert FAMILIES[name].citation
