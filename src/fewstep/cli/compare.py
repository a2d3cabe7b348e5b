"""``fewstep compare``: solvers against the reference, on the same noises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._files import replacing, write_text
from ..comparison import Comparison, check_metrics
from ..comparison import compare as compare_solvers
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

__all__ = ["command", "write_comparison"]


def command(
    model: ModelArgument,
    solvers: Annotated[
        list[str], typer.Argument(help="Solver files, and classical solvers such as euler or midpoint:8.")
    ],
    nfe: Annotated[
        str, typer.Option("--nfe", help="Calls of the classical solvers: 4,6,8 or 4-8.")
    ] = "4,6,8,10",
    count: Annotated[int, typer.Option("--count", min=1, help="How many noises.")] = 256,
    metrics: Annotated[str, typer.Option("--metrics", help="Of rmse, psnr, pooled_rmse.")] = "rmse,psnr",
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("comparison"),
    config: ConfigOption = None,
    seed: SeedOption = 1_000_003,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Score solvers by their distance to the reference solution."""
    check_metrics(metrics.split(","))
    field = load_model(model, device)
    groups = load_solvers(solvers, parse_numbers(nfe), field)
    pairs = draw_pairs(field, count, seed, device, as_json, rtol=1e-6, atol=1e-6)
    table = compare_solvers(field, groups, noise=pairs, metrics=metrics.split(","))
    files = write_comparison(table, out)
    result = {"rows": list(table.rows), "protocol": table.protocol, "files": files}
    report(as_json, result, lambda: f"{table}\n\nwrote {', '.join(files)}")


def write_comparison(table: Comparison, folder: Path) -> list[str]:
    """Write the table as JSON and Markdown, and the plot of errors."""
    write_text(folder / "comparison.json", table.to_json())
    write_text(folder / "comparison.md", table.to_markdown())
    with replacing(folder / "error-against-nfe.png") as temporary:
        table.plot(table.metrics[0]).savefig(temporary, dpi=130)
    return [str(folder / name) for name in ("comparison.json", "comparison.md", "error-against-nfe.png")]
