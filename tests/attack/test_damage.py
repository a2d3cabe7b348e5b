"""Damage of any sort to any file that is read ends in one sentence that names the file, or is harmless."""

from __future__ import annotations

import os
import warnings
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import damaged
from readers import READERS, complaint

#: Damages to each file; more with FEWSTEP_ATTACKS=2000.
EXAMPLES = int(os.environ.get("FEWSTEP_ATTACKS", "100"))


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy and Pillow on odd files
        yield


@pytest.mark.parametrize("name", READERS)
def test_damage_is_one_sentence(name, tmp_path):
    reader = READERS[name]
    reader.make(tmp_path)
    path = tmp_path / reader.file
    whole = path.read_bytes()
    reader.use(reader.read(tmp_path))

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**64 - 1))
    def attack(seed):
        path.write_bytes(damaged(whole, Random(seed)))
        assert complaint(reader, tmp_path) is None

    attack()
