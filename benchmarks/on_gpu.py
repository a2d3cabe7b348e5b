"""Measurements on a GPU, in stages that each end by a deadline and leave a record.

    python benchmarks/on_gpu.py smoke --out out --minutes 3
    python benchmarks/on_gpu.py speed --out out --minutes 6
    python benchmarks/on_gpu.py train --out out --minutes 6 --data data
    python benchmarks/on_gpu.py fit   --out out --minutes 6 --data data --weights trained
    python benchmarks/on_gpu.py table out       # the tables of docs/results/gpu.md

A stage writes ``OUT/STAGE.json`` after every part, so that a run that is cut short leaves its rows.
``--tiny --device cpu`` rehearses a stage on miniature networks.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch
from gpu._record import STAGES, Deadline, Options

from fewstep._device import check_device


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="STAGE")
    for name in STAGES:
        add_options(verbs.add_parser(name))
    verbs.add_parser("table").add_argument("folder", type=Path, help="folder of the records")
    args = parser.parse_args(arguments)
    if args.verb == "table":
        print(importlib.import_module("gpu.tables").tables(args.folder))
        return 0
    device = check_device(args.device)
    if device.index is not None:
        torch.cuda.set_device(device)  # whose stream the events of _timing.py are recorded on
    options = Options(
        out=args.out,
        minutes=args.minutes,
        tiny=args.tiny,
        device=device,
        deadline=Deadline(args.minutes),
        data=args.data,
        weights=args.weights,
        tests=tuple(args.tests),
        parts=tuple(args.parts),
    )
    content = importlib.import_module(f"gpu.{args.verb}").run(options)
    return int(any(each["failed"] for each in content.get("left_out", ())))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the records")
    parser.add_argument("--minutes", type=float, default=6, help="what a stage may take")
    parser.add_argument("--tiny", action="store_true", help="miniature networks and few repetitions")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu")
    parser.add_argument("--data", type=Path, help="folder of cifar10/ and features/")
    parser.add_argument("--weights", type=Path, help="folder that train wrote")
    parser.add_argument("--tests", nargs="+", default=["tests/device"], help="test folders of smoke")
    parser.add_argument("--parts", nargs="+", default=[], help="parts of speed; all by default")


if __name__ == "__main__":
    raise SystemExit(main())
