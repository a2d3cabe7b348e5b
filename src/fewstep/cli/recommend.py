"""``fewstep recommend``: the fewest network calls that reach a wanted accuracy."""

from __future__ import annotations

from pathlib import Path

from ..comparison import compare
from ._common import MODEL, draw_pairs, load_model, load_solvers, parse_numbers, report
from ._condition_files import conditioned
from ._options import Positive, helped

__all__ = ["command"]


@helped(model=MODEL)
def command(
    model: str,
    solvers: list[str],
    *,
    psnr: float = 35.0,
    nfe: str = "4-16",
    count: Positive = 64,
    conditions: Path | None = None,
    per_sample: Path | None = None,
    seed: int = 1_000_003,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Find the solver with the fewest calls that reaches a PSNR to the reference.

    Args:
        solvers: solver files, and classical solvers such as deis3/cosine or midpoint:8.
        psnr: wanted PSNR to the reference, in dB.
        nfe: calls of the classical solvers: 4,6,8 or 4-8.
        count: number of noises.
    """
    field = load_model(model, device)
    groups = load_solvers(solvers, parse_numbers(nfe), field)
    given = conditioned(conditions, per_sample, device)
    pairs = draw_pairs(field, count, seed, device, as_json, **given)
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
