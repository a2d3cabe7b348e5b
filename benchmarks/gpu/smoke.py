"""Stage ``smoke``: the tests that need a GPU, in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ._record import Options, Record

__all__ = ["run"]

PROTOCOL = "pytest -m device, in a process of its own that is interrupted at the deadline."
COUNTS = (
    "Numbers of tests by outcome, seconds, and the exit status of pytest (0: all passed or were skipped)."
)
OTHERS = "Every test that did not pass, and the first line of the reason."
ROOT = Path(__file__).parents[2]
OUTCOMES = {"error": "errors", "failure": "failed", "skipped": "skipped"}
#: pytest's exit status.
INTERRUPTED = 2
#: Seconds that an interrupted pytest has to write its report.
GRACE = 20


def run(options: Options) -> dict[str, Any]:
    """Run the tests, until the deadline."""
    record = Record("smoke", PROTOCOL, options)
    record.part("counts", COUNTS)
    record.part("others", OTHERS)
    record.attempt("counts", 0, lambda: _run(record))
    return record.finish()


def _run(record: Record) -> None:
    options = record.options
    report = options.out.absolute() / "smoke.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "device", f"--junitxml={report}", *options.tests]
    status = _status(command, max(options.deadline.left - GRACE, 1))
    if not report.exists():
        raise RuntimeError(f"pytest ended with status {status} and wrote no report.")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    if suite is None:
        raise RuntimeError(f"{report}: pytest's report has no testsuite.")
    cases = [_case(case) for case in suite.iter("testcase")]
    if status == INTERRUPTED and cases and cases[-1][1] == "passed":
        # The report has no outcome and no name of the test that was interrupted.
        before = cases[-2][0] if len(cases) > 1 else "the start"
        cases[-1] = (f"the test after {before}", "interrupted", "")
    outcomes = [outcome for _, outcome, _ in cases]
    record.row(
        "counts",
        tests=" ".join(options.tests),
        **{kind: outcomes.count(kind) for kind in ("passed", *OUTCOMES.values(), "interrupted")},
        tests_s=float(suite.get("time", "nan")),
        status=status,
    )
    for name, outcome, reason in cases:
        if outcome != "passed":
            record.row("others", test=name, outcome=outcome, reason=reason)
    if status:
        record.leave_out("counts", f"pytest ended with status {status}", failed=True)


def _status(command: list[str], limit: float) -> int:
    """Run a command, interrupted after ``limit`` seconds, and killed if that does not end it."""
    # A background job of a shell, as under nohup, ignores SIGINT, and so would what it starts.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=heed)
    try:
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"smoke: interrupted after {limit:.0f} s", flush=True)
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout=GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own, with what the tests started
        return process.wait()


def _case(case: ElementTree.Element) -> tuple[str, str, str]:
    """Return the name of a test, its outcome and the first line of the reason."""
    name = f"{case.get('classname')}::{case.get('name')}"
    for tag, outcome in OUTCOMES.items():
        found = case.find(tag)
        if found is not None:
            return name, outcome, (found.get("message") or "").split("\n")[0]
    return name, "passed", ""
