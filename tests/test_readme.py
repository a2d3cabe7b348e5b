"""The README's Python is run as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    """A reader who pastes the blocks one after the other gets what the text says."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), scope)
    assert (tmp_path / "digits-8.json").exists()
    printed = capsys.readouterr().out
    assert "8 calls: RMSE" in printed
    assert "rmse" in printed
    assert "psnr" in printed
