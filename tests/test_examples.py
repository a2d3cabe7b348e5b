"""The examples run as they stand, in their quick form."""

import json
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_gaussians(tmp_path):
    printed = run("two_gaussians.py", "--quick", "--out", tmp_path)
    assert "learned coupling" in printed
    assert (tmp_path / "two-gaussians.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert set(rows) == {"diffusion path", "rectified flow", "learned coupling"}
    assert all(row["rmse"]["1"] > row["rmse"]["20"] >= 0 for row in rows.values())
