"""What the documentation shows runs as it stands, and the site builds."""

from __future__ import annotations

import glob
import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from inspect import ismodule
from pathlib import Path

import pytest

import fewstep as fs
from fewstep.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
if not DOCS.is_dir():
    pytest.skip("the documentation is not here", allow_module_level=True)


BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: Options that make the commands of a page quick; all else is as shown.
SMALLER = {
    "compare": "--count 16",
    "distill": "--steps 20 --batch 16 --test-pairs 8",
    "fit": "--pairs 8 --iterations 1 --init ab2",
    "recommend": "--count 16",
    "reflow": "--steps 20 --batch 16 --pairs 32",
    "sample": "--count 64",
    "train": "--steps 20 --batch 16",
}
#: Commands that are not run here: they set up an environment, which this one is, or go on until Ctrl-C.
LEFT_OUT = re.compile(r"make |pip install |fewstep view .* --(watch|serve)")


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of code in a language, those in its comments too."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for name, code in found if name == language]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


PAGES = [README, *sorted(DOCS.rglob("*.md"))]


@pytest.fixture
def names(request, monkeypatch):
    """Names that a page uses without making them: ``pipe``, a pipeline with tiny random networks.

    Outside of the first page, fits are short where the page does not say how long (one iteration from DDIM, a
    reference of eight steps), and there are only so many classical solvers to compare them with.
    """
    page = request.node.callspec.params["page"]
    if page.name != "start.md":
        few = {"optimizer": fs.fitting.GaussNewton(iterations=1), "reference": fs.fitting.Reference(steps=8)}
        monkeypatch.setattr(fs, "fit", partial(fs.fit, init="ddim", **few))
        request.getfixturevalue("few_rivals")
    if not re.search(r"\bpipe\b", "".join(blocks(page, "python"))):
        return {}
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    monkeypatch.syspath_prepend(ROOT / "tests" / "adapters")
    from tiny_text import pipeline

    return {"pipe": pipeline()}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_runs_in_order(page, names, tmp_path, monkeypatch):
    """A reader who pastes the blocks one after the other meets no error."""
    monkeypatch.chdir(tmp_path)
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", [README, DOCS / "start.md", DOCS / "straight-flows.md"], ids=name_of)
def test_commands_run_one_after_another(page, tmp_path, monkeypatch, capsys):
    """They share one folder, with the configurations of the checkout in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    lines = "".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    for line in filter(None, lines):
        if LEFT_OUT.match(line):
            continue
        program, *words = [part for word in shlex.split(line, comments=True) for part in expanded(word)]
        assert program == "fewstep", line
        smaller = SMALLER.get(words[0], "").split() if "--seeds" not in words else []
        monkeypatch.setattr("sys.argv", [program, *words, *smaller])
        try:
            main()
        except SystemExit as left:
            pytest.fail(f"{line}: status {left.code}: {capsys.readouterr().err}")


def expanded(word: str) -> list[str]:
    """A word of a command as the shell passes it on."""
    return sorted(glob.glob(word)) or [word]


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.ipynb")), ids=name_of)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """Cells run in order, trainings with few steps."""
    matplotlib = pytest.importorskip("matplotlib", reason="the notebooks draw")
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            source = "".join(cell["source"]).replace("STEPS = 1500", "STEPS = 20")
            exec(compile(source, path.name, "exec"), names)


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_the_readme_links_to_what_exists():
    """The site's own links are checked when it is built."""
    links = re.findall(r"\]\(([^)#]+)", README.read_text(encoding="utf-8"))
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert not missing


def test_every_public_module_has_a_page():
    modules = {name for name in fs.__all__ if ismodule(getattr(fs, name))}
    assert modules <= {page.stem for page in (DOCS / "api").glob("*.md")}


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (the extra docs)")
    # With --quiet it would not count its warnings.
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert "log_likelihood" in reference
    assert ":class:" not in reference
