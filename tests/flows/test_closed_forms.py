"""What is known exactly about flows between Gaussians, within 2 %."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import closed_forms


def test_the_best_flows_have_their_losses_and_curvature():
    rows = list(closed_forms.exact_flows())
    assert len(rows) == 11
    for what, expected, found in rows:
        assert found == pytest.approx(expected, rel=0.02), what


def test_the_best_encoders_are_those_of_their_kl_weights():
    """Through the learned coupling, whose gradient must reach the encoder by every way."""
    rows = list(closed_forms.exact_encoders())
    assert len(rows) == 11
    for what, expected, found in rows:
        assert found == pytest.approx(expected, rel=0.02), what


@pytest.mark.slow
@pytest.mark.parametrize("part", ["trained_flows", "trained_encoders"])
def test_training_finds_them_too(part):
    for what, expected, found in getattr(closed_forms, part)():
        assert found == pytest.approx(expected, rel=0.02), what
