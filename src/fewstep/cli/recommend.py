"""``fewstep recommend``: the fewest network calls that reach a wanted accuracy."""

from __future__ import annotations

from typing import Annotated

import typer

from ..comparison import compare
from ._common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    draw_pairs,
    load_model,
    load_solvers,
    parse_numbers,
    report,
)

__all__ = ["command"]


def command(
    model: ModelArgument,
    solvers: Annotated[
        list[str],
        typer.Argument(help="Solver files, and classical solvers such as deis3/cosine or midpoint:8."),
    ],
    psnr: Annotated[float, typer.Option("--psnr", help="Wanted PSNR to the reference, in dB.")] = 35.0,
    nfe: Annotated[str, typer.Option("--nfe", help="Calls of the classical solvers: 4,6,8 or 4-8.")] = "4-16",
    count: Annotated[int, typer.Option("--count", min=1, help="How many noises.")] = 64,
    config: ConfigOption = None,
    seed: SeedOption = 1_000_003,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Find the solver with the fewest calls that reaches a PSNR to the reference."""
    field = load_model(model, device)
    groups = load_solvers(solvers, parse_numbers(nfe), field)
    pairs = draw_pairs(field, count, seed, device, as_json, rtol=1e-6, atol=1e-6)
    table = compare(field, groups, noise=pairs)
    enough = [row for row in table.rows if row["psnr"] >= psnr]
    chosen = min(enough, key=lambda row: (row["nfe"], -row["psnr"]), default=None)
    if chosen is None:
        words = f"none of them reaches {psnr:g} dB"
        sound = [row for row in table.rows if "failure" not in row]
        if sound:
            best = max(sound, key=lambda row: row["psnr"])
            words += f"; the nearest is {best['solver']} with {best['nfe']} calls, {best['psnr']:.1f} dB"
    else:
        words = f"{chosen['solver']} with {chosen['nfe']} calls reaches {chosen['psnr']:.1f} dB"
    result = {"wanted": psnr, "recommended": chosen, "rows": list(table.rows), "protocol": table.protocol}
    report(as_json, result, lambda: "\n\n".join([table.by_nfe("psnr"), *table.failures, words]))
