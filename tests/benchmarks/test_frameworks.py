"""The benchmark of frameworks: its code is that of the guide, and what is installed agrees."""

from __future__ import annotations

import re
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import frameworks

GUIDE = Path(__file__).parents[2] / "docs" / "fit-your-model"


@pytest.mark.skipif(not GUIDE.is_dir(), reason="needs the docs")
def test_the_guide_shows_the_code_that_is_run():
    pages = "".join((GUIDE / name).read_text(encoding="utf-8") for name in ("flows.md", "denoisers.md"))
    shown = {block.strip() for block in re.findall(r"```py(?:thon)?\n(.*?)```", pages, flags=re.DOTALL)}
    run = {
        textwrap.dedent(part).strip()
        for each in frameworks.FRAMEWORKS
        for part in (each.here, each.solver_there, each.field_there)
        if part is not None
    }
    assert run <= shown


@pytest.mark.parametrize("framework", frameworks.FRAMEWORKS, ids=lambda framework: framework.name)
def test_what_is_installed_agrees(framework):
    names = {"fs": frameworks.fs, "torch": torch, "noise": frameworks.NOISE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        try:
            framework.load(names)
        except ImportError:
            pytest.skip(f"{framework.name} is not installed")
    with torch.no_grad():
        theirs = frameworks.run(framework.theirs, names)
        assert frameworks.deviation(frameworks.run(framework.here, names), theirs) < 2e-5


def test_a_framework_that_is_not_installed_has_a_row(monkeypatch):
    def absent(names):
        raise ImportError("no such thing")

    absent_one = frameworks.FRAMEWORKS[0]._replace(load=absent)
    monkeypatch.setattr(frameworks, "FRAMEWORKS", [absent_one, frameworks.FRAMEWORKS[2]])
    first, second = frameworks.rows()
    assert frameworks.cells(first)[:2] == ["flow_matching", "not installed"]
    assert len(frameworks.cells(first)) == len(frameworks.cells(second)) == 7
    assert second["model_here"] < 1e-5
    assert second["field_there"] < 1e-5
    assert (second["lines_here"], second["lines_field"]) == (2, 2)
