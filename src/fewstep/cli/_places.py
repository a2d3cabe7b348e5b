"""Default places of results."""

from __future__ import annotations

import re
from pathlib import Path

from ._common import PREFIX

__all__ = ["named_after"]


def named_after(*words: str) -> str:
    """Return the name of a file or folder made from a model and a solver, as they were typed."""
    parts: list[str] = []
    for word in words:
        if word.startswith(PREFIX):
            word = Path(word.removeprefix(PREFIX)).name
        path = Path(word)
        if path.suffix in (".json", ".safetensors"):
            word = path.parent.name if path.stem in ("flow", "network") and path.parent.name else path.stem
        elif ".py:" in word:
            word = Path(word).name.replace(".py:", "-")
        parts.append(re.sub(r"[^\w.+-]+", "-", word).strip("-."))
    if len(parts) > 1 and parts[0] in parts[1]:  # a solver's file is often named after the model
        parts = parts[1:]
    return "-".join(parts)
