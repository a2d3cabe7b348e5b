"""What importing fewstep brings along."""

from __future__ import annotations

import subprocess
import sys


def test_no_adapter_imports_its_framework():
    others = "{'diffusers', 'flow_matching', 'torchcfm', 'k_diffusion', 'accelerate', 'transformers'}"
    code = f"import sys, fewstep; print(sorted({others} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
