import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "results" / "metrics.md"


def test_its_python_prints_what_its_comments_say(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(block, str(PAGE), "exec"), {})
    said = re.findall(r"  # (.*)", block)
    printed = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    for line, expected in zip(printed, said, strict=True):
        # The last digits are the machine's.
        for a, b in zip(re.findall(r"[\d.]+", line), re.findall(r"[\d.]+", expected), strict=True):
            assert abs(float(a) - float(b)) <= 0.03 * float(b) + 1e-4
