"""The examples run as they stand, in their quick form."""

import json
import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_two_gaussians(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["two_gaussians.py", "--quick", "--out", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "two_gaussians.py"), run_name="__main__")
    assert "learned coupling" in capsys.readouterr().out
    assert (tmp_path / "two-gaussians.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert set(rows) == {"diffusion path", "rectified flow", "learned coupling"}
    assert all(row["rmse"]["1"] > row["rmse"]["20"] >= 0 for row in rows.values())
