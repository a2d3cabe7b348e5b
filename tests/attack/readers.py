"""Every reader of the package, with a valid file for it."""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import fewstep as fs
from fewstep.cli._condition_files import conditioned
from fewstep.cli._options import call
from fewstep.data import PairShards
from fewstep.flows._run_folder import _read_facts, _restore, _write
from fewstep.generation._reader import read_generated
from fewstep.metrics.features._inception import from_torchscript
from fewstep.metrics.features._load import load as load_features
from fewstep.metrics.features._references import load_reference
from fewstep.metrics.moments import Moments
from fewstep.models import load_field
from fewstep.networks import MLP, SongUNet, load_fast_ode, save_network
from fewstep.report.training import training_page

__all__ = ["READERS", "Reader", "complaint"]

#: Most characters of a message, beside the path.
LONGEST = 400

CPU = torch.device("cpu")
SHARD, IDX = "pairs-00000000-00000003.safetensors", "train-images-idx3-ubyte"


class Reader(NamedTuple):
    """A reader.

    Args:
        make: writes all files into an empty folder.
        file: name of the file there that is damaged.
        read: reads it, given the folder; its errors must name the file or the folder.
        use: uses what was read, as far as a file can spoil it; its errors need not.
    """

    make: Callable[[Path], None]
    file: str
    read: Callable[[Path], Any]
    use: Callable[[Any], Any] = lambda found: None


def complaint(reader: Reader, folder: Path) -> str | None:
    """Read a damaged file; return what is wrong with the sentence that refuses it, nothing if it is right.

    Other errors than a reader may raise come through.
    """
    try:
        found = reader.read(folder)
    except (ValueError, OSError) as error:
        said = str(error)
        short = said.replace(str(folder), "")
        faults = {
            "does not name the file": str(folder) not in said,
            "has several lines": "\n" in said,
            "is too long": len(short) >= LONGEST,
        }
        wrong = [fault for fault, holds in faults.items() if holds]
        return f"{' and '.join(wrong)}: {short:.{LONGEST}}" if wrong else None
    with suppress(ValueError, OSError, ArithmeticError, RuntimeError):  # as the command line
        reader.use(found)
    return None


def _field() -> fs.Field:
    return fs.Field(lambda x, t: -x, shape=(2,), name="plain")


def _solver(folder: Path) -> None:
    facts = {
        "fitted_for": {**_field().describe(), "also": [_field().describe()]},
        "scores": {
            "validation_rmse": {"fitted": 0.1, "euler": None},
            "typical": 0.5,
            "left": 0.1,
            "by_chance": None,
        },
        "family": {"name": "non_stationary", "theta": [0.1]},
        "protocol": {"pairs": {"train": 2, "validation": 2}, "notes": ["few"]},
        "schedule": fs.schedules.VP(0.2, 15.0),
        "prediction": "noise",
    }
    made = fs.classical.midpoint(2)
    fs.Solver(made.times, made.C, made.D, made.points, end=0.999, citation=("one",), **facts).save(
        folder / "solver.json"
    )


def _use_solver(solver: fs.Solver) -> None:
    if solver.nfe <= 64:
        field = fs.Field(lambda x, t: -x, solver.schedule, solver.prediction, shape=(2,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was fitted for another
            solver.sample(field, fs.noise(2, (2,)))
        str(fs.inspect(solver))
        solver._body("name", {})


def _fit(**options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        field = fs.Field(lambda x, t: -x + 0.3 * x.sin(), shape=(2,), name="plain")
        fs.fit(field, pairs=16, **options).save(folder / "fit.json")

    return make


def _use_fit(fit: Any) -> None:
    str(fit)
    for row in fit.report.rows[:2]:
        if row["trained"] and row["nfe"] <= 64:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit.at(row["nfe"], row["guidance"]).sample(_field(), fs.noise(2, (2,)))
    fit._body("name", {})


def _pairs(folder: Path) -> None:
    made = fs.Pairs(
        fs.noise(4, (2,)), fs.noise(4, (2,), seed=1), 3, 12, 0.1, {"scale": 2.0, "words": ["a", "b"]},
        {"label": torch.arange(4), "inner": {"text": torch.zeros(4, 2)}}, {"field": _field().describe()},
        torch.arange(4),
    )  # fmt: skip
    made.save(folder / "pairs.safetensors")


def _use_pairs(pairs: fs.Pairs) -> None:
    pairs[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs.warn_of_another(_field(), "fit")


def _shards(folder: Path) -> None:
    fs.Pairs(fs.noise(4, (2,)), fs.noise(4, (2,), seed=1)).save(
        folder / "pairs-00000000-00000003.safetensors"
    )


def _read_shards(folder: Path) -> Any:
    data = PairShards(folder)
    data.check()
    return data


def _network(folder: Path) -> None:
    save_network(
        folder / "net.safetensors", MLP((2,), 8, 1), shape=[2], schedule={"name": "vp", "beta_min": 0.1}
    )


def _fast_ode(folder: Path) -> None:
    config = {
        "img_resolution": 4,
        "in_channels": 1,
        "out_channels": 1,
        "model_channels": 32,
        "channel_mult": [1],
    }
    config |= {"num_blocks": 1, "attn_resolutions": []}
    torch.save(SongUNet(**config).state_dict(), folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(config))


def _moments(folder: Path) -> None:
    facts = {"features": {"name": "own", "sha256": None, "dims": 2}, "pictures": {"shape": [1, 8, 8]}}
    Moments.of(fs.noise(8, (2,)), facts).save(folder / "stats.npz")


def _samples(*formats: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        field = fs.Field(lambda x, t: -x, shape=(1, 4, 4), name="plain")
        fs.generate(field, fs.classical.euler(2), range(4), folder / "out", formats=formats)

    return make


def _checkpoint(folder: Path) -> None:
    network, optimizer = _trained()
    facts = {
        "step": 1, "samples": 8, "best": 0.5, "scaler": None, "torch": torch.__version__,
        "run": {"settings": {"decay": "cosine", "steps": 2}},
    }  # fmt: skip
    _write(folder / "step-00000001.safetensors", {"flow": network}, optimizer, facts)


def _trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return network, optimizer


def _read_checkpoint(folder: Path) -> Any:
    path = folder / "step-00000001.safetensors"
    network, optimizer = _trained()
    facts = _read_facts(path)
    _restore(path, {"flow": network}, optimizer)
    return facts


def _run(folder: Path) -> None:
    run = {
        "settings": {"steps": 4, "batch": 2},
        "objective": {"name": "Flow"},
        "data": {"name": "x", "count": 4},
    }
    record = {
        "format": "fewstep.run", "schema": 1, "run": run, "data": {"name": "x", "shape": [1, 4, 4]},
        "parameters": {"flow": 10}, "device": {"kind": "cpu"}, "started": 1.0, "ended": None,
        "versions": {"torch": "2"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    lines = (
        {"step": k, "loss": 1.0 / k, "samples": 2 * k, "samples_per_second": 3.0, "time": 1.0} for k in (1, 2)
    )
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def levels(count: int = 3, size: int = 8) -> np.ndarray:
    """Random pictures, uint8 ``(count, size, size, 3)``."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def encoded(picture: np.ndarray, format: str) -> bytes:
    """A picture as the bytes of a file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format)
    return stream.getvalue()


def _all(data: fs.data.Dataset) -> torch.Tensor:
    return data[range(len(data))]


def _picture(format: str, suffix: str) -> Reader:
    def make(folder: Path) -> None:
        for k, each in enumerate(levels()):
            (folder / f"{k}{suffix}").write_bytes(encoded(each, format))

    return Reader(make, f"0{suffix}", lambda folder: _all(fs.data.load(folder)))


def _zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k, each in enumerate(levels()):
            archive.writestr(f"train/{k}.png", encoded(each, "PNG"))


def _parquet(folder: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    rows = [{"bytes": encoded(each, "PNG"), "path": "a.png"} for each in levels()]
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    parquet.write_table(arrow.table({"image": arrow.array(rows, kind)}), folder / "data.parquet")


def _read_parquet(folder: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    return _all(fs.data.load(folder / "data.parquet"))


def _idx(folder: Path, packed: bool = False) -> None:
    content = struct.pack(">4B3I", 0, 0, 8, 3, 3, 8, 8) + levels()[..., 0].tobytes()
    path = folder / (f"{IDX}.gz" if packed else IDX)
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)


def _conditions(folder: Path, suffix: str) -> None:
    if suffix == ".npz":
        np.savez_compressed(
            folder / "c.npz", a=np.zeros((2, 3)), **{"b.c": np.arange(2), "words": np.array(["x"])}
        )
    elif suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(2, 3), "b.c": torch.arange(2)}, folder / "c.safetensors")
    else:
        (folder / "c.yaml").write_text(
            "a: [[1, 2], [3, 4]]\nb: {c: [1, 2], d: word}\nscale: 2.5\nnames: [x, y]\n"
        )


def _read_conditions(suffix: str) -> Callable[[Path], Any]:
    return lambda folder: conditioned(None, folder / f"c{suffix}", "cpu")


def _command(
    *, count: int = 3, rate: float = 1.0, names: tuple[str, ...] = (), extra: dict | None = None
) -> None:
    """Do nothing.

    Args:
        count: a number.
        rate: a number.
        names: words.
        extra: a mapping.
    """


def _torchscript(folder: Path) -> None:
    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.float().mean((2, 3)) * self.scale

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Mean()).save(str(folder / "net.pt"))


def _features(folder: Path) -> None:
    weights = Path(fs.__file__).parent / "metrics" / "features" / "weights" / "mnist-classifier.safetensors"
    (folder / "net.safetensors").write_bytes(weights.read_bytes())


def _generated(folder: Path) -> Any:
    return _all(read_generated(folder / "out").samples)


def _cifar(folder: Path) -> None:
    (folder / "data_batch_1.bin").write_bytes((bytes([3]) + bytes(range(256)) * 12) * 2)


def _npz(folder: Path) -> None:
    np.savez_compressed(folder / "data.npz", x_train=levels(), x_test=levels(2))


def _config(folder: Path) -> None:
    (folder / "c.yaml").write_text("count: 4\nrate: 2.5\nnames: [a, b]\nextra: {x: [1, 2], y: ~}\n")


def _solver_or_fit(folder: Path) -> Any:
    return fs.load(next(folder.glob("*.json")))


def _load_fast_ode(folder: Path) -> Any:
    return load_fast_ode(folder / "model.pth", folder / "config.json")


_CURVE = {"nfe": (3, 4), "family": "smooth_corrections"}

READERS: dict[str, Reader] = {
    "solver": Reader(_solver, "solver.json", _solver_or_fit, _use_solver),
    "fit": Reader(_fit(nfe=3), "fit.json", _solver_or_fit, _use_fit),
    "curve": Reader(_fit(**_CURVE), "fit.json", _solver_or_fit, _use_fit),
    "pairs": Reader(
        _pairs, "pairs.safetensors", lambda f: fs.Pairs.load(f / "pairs.safetensors"), _use_pairs
    ),
    "shards": Reader(_shards, SHARD, _read_shards),
    "network": Reader(
        _network,
        "net.safetensors",
        lambda f: load_field(f / "net.safetensors"),
        lambda field: field(fs.noise(2, field.shape), torch.tensor(0.5)),
    ),
    "fast_ode": Reader(_fast_ode, "model.pth", _load_fast_ode),
    "fast_ode config": Reader(_fast_ode, "config.json", _load_fast_ode),
    "moments": Reader(
        _moments, "stats.npz", lambda f: load_reference(f / "stats.npz"), lambda r: r.moments.covariance
    ),
    "result": Reader(_samples("safetensors"), "out/result.json", _generated),
    "block": Reader(_samples("safetensors"), "out/blocks/000000.json", _generated),
    "samples": Reader(_samples("safetensors"), "out/samples.safetensors", _generated),
    "npz samples": Reader(_samples("npz"), "out/samples-00000000-00000003.npz", _generated),
    "checkpoint": Reader(_checkpoint, "step-00000001.safetensors", _read_checkpoint),
    "run": Reader(_run, "run.json", training_page),
    "metrics": Reader(_run, "metrics.jsonl", training_page),
    "png": _picture("PNG", ".png"),
    "jpeg": _picture("JPEG", ".jpg"),
    "webp": _picture("WEBP", ".webp"),
    "bmp": _picture("BMP", ".bmp"),
    "zip": Reader(_zip, "data.zip", lambda f: _all(fs.data.load(f / "data.zip"))),
    "npz": Reader(_npz, "data.npz", lambda f: _all(fs.data.load(f / "data.npz"))),
    "parquet": Reader(_parquet, "data.parquet", _read_parquet),
    "idx": Reader(_idx, IDX, lambda f: _all(fs.data.load(f))),
    "idx.gz": Reader(partial(_idx, packed=True), f"{IDX}.gz", lambda f: _all(fs.data.load(f))),
    "cifar": Reader(_cifar, "data_batch_1.bin", lambda f: _all(fs.data.load(f))),
    **{
        f"conditions{suffix}": Reader(
            partial(_conditions, suffix=suffix), f"c{suffix}", _read_conditions(suffix)
        )
        for suffix in (".npz", ".safetensors", ".yaml")
    },
    "config": Reader(
        _config, "c.yaml", lambda f: call(_command, "fewstep try", ["--config", str(f / "c.yaml")])
    ),
    "torchscript": Reader(_torchscript, "net.pt", lambda f: from_torchscript(f / "net.pt", CPU, "own")),
    "features": Reader(_features, "net.safetensors", lambda f: load_features(f / "net.safetensors")),
}
