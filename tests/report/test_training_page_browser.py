"""The page of a real training in a browser: its script runs, its sliders move together, nothing complains."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import torch

from fewstep.data import load
from fewstep.flows import FlowMatching, Learned, Settings, Trainer
from fewstep.networks import MLP, GaussianEncoder

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    torch.manual_seed(0)
    shape = {"width": 16, "blocks": 1}
    encoder = GaussianEncoder(MLP((1, 8, 8), **shape, out_channels=2))
    settings = Settings(steps=20, batch=16, log_every=5, validate_every=10, warmup=1, clip=1.0)
    objective = FlowMatching(MLP((1, 8, 8), **shape), Learned(encoder, 1.0))
    data = load("digits")
    Trainer(
        objective, data, settings, out=folder, validation=data, device="cpu", progress=False
    ).run()  # fmt: skip
    return folder


def browse(path, profile):
    """The document after its script has run, and what was written to the console."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--enable-logging=stderr", "--dump-dom", f"file://{path}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_of_a_run_opens_without_complaints(run, tmp_path):
    document, console = browse(run / "index.html", tmp_path)
    assert console == []
    assert document.count('type="range"') == 5  # made by the script, one a kind of picture
    assert document.count('aria-valuetext="Step: 20"') == 5
    assert "Finished: 20 steps" in document


def test_a_script_that_fails_is_seen(run, tmp_path):
    page = (run / "index.html").read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace("</script>", " </script>"))  # not the script that the page allows
    _, console = browse(broken, tmp_path / "profile")
    assert console
