"""Attacks on files: damage of any sort to any file that is read, by the readers and damages of the tests."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[2] / "tests" / "attack"))

from mutations import damaged
from readers import READERS, complaint

__all__ = ["ATTACKS", "DAMAGES"]

#: Damages to one file; making it takes longer than reading it.
DAMAGES = 100


def _attack(name: str, folder: Path, chance: Random) -> Iterator[str]:
    reader = READERS[name]
    reader.make(folder)
    path = folder / reader.file
    whole = path.read_bytes()
    for _ in range(DAMAGES):
        path.write_bytes(damaged(whole, chance))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numpy and Pillow on odd files
                fault = complaint(reader, folder)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
        if fault is not None:
            yield fault


ATTACKS = {name: partial(_attack, name) for name in READERS}
