"""The claims of the papers: two of them with shrunken settings, and their document."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import papers
from claims import CLAIMS, Size, measured, table

RESULTS = Path(__file__).parents[2] / "docs" / "results"
documented = pytest.mark.skipif(not (RESULTS / "papers.md").is_file(), reason="needs the docs")


@pytest.mark.parametrize("name", ["time-or-scale", "stopping"])
def test_a_claim_is_measured(tmp_path, name):
    shown = []
    found = measured(CLAIMS[name], Size.small(tmp_path), shown.append)
    assert found["ours"]
    assert all(0 < value for row in found["rows"] for value in row["figures"].values() if value != 0)
    assert "\n".join(shown).splitlines() == table(found["rows"])
    json.dumps(found)


def test_the_published_counts_are_ours():
    rows = measured(CLAIMS["parameters"], Size.small(Path()), print)["rows"]
    judged = [row for row in rows if row["holds"] is not None]
    assert len(judged) == 4
    assert all(row["holds"] and row["figures"]["numbers"] == row["figures"]["published"] for row in judged)


def test_rows_of_other_columns_make_a_table_of_their_own():
    rows = [
        {"case": "a", "figures": {"x": 0.5}, "holds": None},
        {"case": "b", "figures": {"y": 2}, "holds": True},
    ]
    kept = {"parameters": {"ours": "so", "seconds": 1, "rows": rows}}
    lines = papers.page(kept).splitlines()
    first = lines.index("| case | x |")
    assert lines[first : first + 4] == ["| case | x |", "|---|---|", "| a | 0.5000 |", ""]
    assert lines[first + 4 : first + 7] == ["| case | y | holds |", "|---|---|---|", "| b | 2 | yes |"]


def test_a_claim_that_does_not_exist_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["papers.py", "loses"])
    with pytest.raises(SystemExit):
        papers.main()
    assert "there is no claim loses; there are losses, " in capsys.readouterr().err


@documented
def test_the_document_is_that_of_the_kept_rows():
    kept = json.loads((RESULTS / "papers.json").read_text(encoding="utf-8"))
    assert (RESULTS / "papers.md").read_text(encoding="utf-8") == papers.page(kept)


@documented
def test_every_claim_is_documented_with_a_command_that_exists():
    text = (RESULTS / "papers.md").read_text(encoding="utf-8")
    assert set(re.findall(r"papers\.py ([\w-]+)", text)) - {"all"} == set(CLAIMS)
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) == set(re.findall(r"^## ([\w-]+)$", text, re.MULTILINE))
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (RESULTS / name).is_file()
