"""Attacks from outside: what the program does when it is killed, doubled, cut short or fed with damage.

Prints the number of inputs of each attack and its distinct faults; the exit status is 1 if there are any.

    python benchmarks/attack.py processes --rounds 20
    python benchmarks/attack.py files --rounds 20
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from attacks.files import ATTACKS as FILES
from attacks.files import DAMAGES
from attacks.processes import ATTACKS as PROCESSES

#: Attacks by part: functions of an empty folder and a source of chance that return their faults.
PARTS = {"processes": PROCESSES, "files": FILES}
#: Inputs of a round.
INPUTS = {"processes": 1, "files": DAMAGES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=5, help="of each attack")
    parser.add_argument("--only", choices=sorted(name for part in PARTS.values() for name in part))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = 0
    for name, attack in PARTS[options.part].items():
        if options.only in (None, name):
            faults: Counter[str] = Counter()
            for number in range(options.rounds):
                with tempfile.TemporaryDirectory() as folder:
                    chance = random.Random(f"{options.seed} {name} {number}")
                    faults.update(attack(Path(folder), chance))
            inputs = options.rounds * INPUTS[options.part]
            print(f"{name}: {inputs} inputs, {len(faults)} distinct faults", flush=True)
            for fault, count in faults.most_common():
                print(f"  {count} x {fault}", flush=True)
            found += len(faults)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
