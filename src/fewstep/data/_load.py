"""Data sets by name or path."""

from __future__ import annotations

import os
from pathlib import Path

from .._names import check_name
from ._dataset import Dataset
from ._hub import table_from_hub
from ._images import ImageFiles, TableRecords
from ._paths import from_array, from_path
from ._picture import Form
from ._splits import pick
from .digits import digits

__all__ = ["NAMES", "load"]

#: Environment variable with the folder of data sets by name.
_FOLDER = "FEWSTEP_DATA"

#: Data sets of the Hugging Face Hub by our names, with their splits, to be checked before downloading
#: gigabytes.
_HUB = {
    "mnist": ("ylecun/mnist", ("train", "test")),
    "fashion-mnist": ("zalando-datasets/fashion_mnist", ("train", "test")),
    "cifar10": ("uoft-cs/cifar10", ("train", "test")),
    "ffhq": ("Dmini/FFHQ-64x64", ("train",)),
    "afhq": ("huggan/AFHQv2", ("train",)),
    "celebahq": ("korexyz/celeba-hq-256x256", ("train", "validation")),
}

#: All names that :func:`load` knows.
NAMES = ("digits", *_HUB)


def load(
    source: str | os.PathLike[str],
    *,
    split: str = "train",
    resolution: int | None = None,
    channels: int | None = None,
) -> Dataset:
    """Open data by name or path.

    Names: ``digits`` (8 x 8, in the package, float32 in [-1, 1]), ``mnist``, ``fashion-mnist``,
    ``cifar10``, ``ffhq`` (64 x 64), ``afhq`` (AFHQv2, 512 x 512) and ``celebahq`` (256 x 256). They are
    searched for in the folder given by the environment variable ``FEWSTEP_DATA`` (as ``mnist/``,
    ``mnist.npz``, ``mnist.zip`` or ``mnist.parquet``), then in the cache of Hugging Face ``datasets``, then
    on the Hub.

    Paths: names take precedence; write ``./mnist`` for a folder with the name of a data set.

    - ``.npz``: ``x_train`` and ``x_test``, or ``images``, ``data``, ``arr_0`` or a single array; uint8 of
      ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` (of four axes the last is channels if its length is
      1, 3 or 4), or floating-point ``(N, ...)``, used unchanged. Labels are ignored.
    - idx files, gzipped or not, or a folder of ``train-images-idx3-ubyte`` and ``t10k-images-idx3-ubyte``.
    - CIFAR-10's binary version, a folder of ``data_batch_1.bin`` ... and ``test_batch.bin``; or sprites,
      ``train_00.webp`` ... and ``test_00.webp`` ... of 25 x 40 pictures each.
    - a folder or zip file of images (png, jpg, jpeg, webp, bmp; searched recursively, sorted, without hidden
      files; links are followed, each folder once). If it has a folder ``train/``, its splits are ``train/``,
      ``test/`` and ``validation/``, also as ``Training/``, ``testset/``, ``val/`` and such.
    - a parquet file, or a folder of them, with an image column as Hugging Face writes it; splits come from
      file names that begin with ``train``, ``test`` or ``validation``.

    Images keep their size and channels unless ``resolution`` or ``channels`` is given, and must all have the
    same. The first is read immediately, the others on access; :meth:`Dataset.check` reads them all.

    Args:
        source: name or path.
        split: ``"train"``, ``"test"``, or ``"validation"`` where there is one. A source without splits is
            all ``"train"``.
        resolution: crop images to their central square and resize it (Lanczos) to this many pixels a side.
        channels: 1 for grey, 3 for RGB (transparency is dropped).

    Raises:
        FileNotFoundError: when the path does not exist, or a named data set can be neither found nor
            downloaded.
        ValueError: when the data are damaged, lack the split, or are of no known kind.
        ImportError: naming the extra to install.
    """
    form = Form(resolution, channels)
    name = os.fspath(source)
    if not isinstance(source, str) or name not in NAMES:
        path = Path(source).expanduser()
        if isinstance(source, str) and Path(name).name == name and not path.suffix and not path.exists():
            check_name(f"{name}: there is no such path, and the name of data", name, NAMES)
        return from_path(path, split, form)
    if name == "digits":
        images = pick({"train": digits()[0]}, split, name)
        return from_array(images.numpy(), name, form)
    local = _local(name)
    if local is not None:
        return from_path(local, split, form, name)
    hub, splits = _HUB[name]
    pick(dict.fromkeys(splits), split, f"{name} ({hub})")
    try:
        table = table_from_hub(hub, split)
    except ConnectionError as error:
        folder = os.environ.get(_FOLDER)
        looked = f"({folder}) holds no {name}" if folder else "is not set"
        raise FileNotFoundError(
            f"load: {name!r} is not on this machine: {_FOLDER} {looked}, the cache of Hugging Face datasets "
            f"has no split {split!r} of {hub}, and {error}; give a path (npz, idx, zip, parquet, or a folder "
            f"of pictures), or set {_FOLDER} to a folder with {name}.npz or {name}/ in it."
        ) from error
    return ImageFiles(TableRecords(table, hub), name, form)


def _local(name: str) -> Path | None:
    """Return the path of a named data set in the folder ``FEWSTEP_DATA``, or ``None``."""
    setting = os.environ.get(_FOLDER)
    if not setting:
        return None
    folder = Path(setting).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"load: {_FOLDER} is set to {folder}, which is not a folder.")
    candidates = (folder / f"{name}{suffix}" for suffix in ("", ".npz", ".zip", ".parquet"))
    return next((path for path in candidates if path.exists()), None)
