"""Files that claim, or unpack to, far more than they have: refused by name, soon, and in little memory."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet
from readers import IDX
from safetensors.torch import save_file

import fewstep as fs
from fewstep.networks import MLP, network_config, save_network

MB = 1 << 20
#: Loads the files of a list, one by one, and prints error, megabytes and seconds of each.
SCRIPT = """
import json, sys, time
import datasets, pyarrow.parquet, torch, yaml, PIL.Image
import fewstep as fs
from fewstep.cli._condition_files import conditioned
from fewstep.models import load_field
from pathlib import Path

datasets.disable_progress_bars()
read = {
    ".json": fs.load,
    ".safetensors": load_field,
    ".yaml": lambda path: conditioned(Path(path), None, "cpu"),
}

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3

for path in sys.argv[1:]:
    open("/proc/self/clear_refs", "w").write("5")
    before, start, said = peak(), time.perf_counter(), None
    try:
        read.get(Path(path).suffix, fs.data.load)(path)
    except (ValueError, OSError) as error:
        said = str(error)
    print(json.dumps([said, peak() - before, time.perf_counter() - start]), flush=True)
"""


def gz(folder, claimed):
    packed = gzip.compress(bytes(16 * MB), mtime=0)
    head = struct.pack(">4B3I", 0, 0, 8, 3, claimed // 64, 8, 8)
    (folder / IDX).with_suffix(".gz").write_bytes(gzip.compress(head, mtime=0) + packed * 150)
    return f"{IDX}.gz"


def zipped(folder, name, member, start, size, claimed):
    """A zip file of one member: ``start`` and zeros, ``size`` bytes in all, of which it claims others."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(16 * MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed += part * (size // (16 * MB)) + packer.flush()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(member, packed)
    data, fields = bytearray(stream.getvalue()), struct.pack("<I", claimed)
    for mark, method, length in ((b"PK\3\4", 8, 22), (b"PK\1\2", 10, 24)):
        at = data.rindex(mark)
        data[at + method : at + method + 2] = b"\x08\x00"
        data[at + length : at + length + 4] = fields
    (folder / name).write_bytes(data)
    return name


def plain(folder, name, member, content):
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(member, content)
    return name


def npy(shape):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode()


def picture(folder, side):
    stream = io.BytesIO()
    Image.new("L", (side, side)).save(stream, "PNG")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "0.png").write_bytes(stream.getvalue())
    return "pictures"


def table(folder):
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    rows = [{"bytes": bytes(4 * MB), "path": None}] * 300
    parquet.write_table(arrow.table({"image": arrow.array(rows, kind)}), folder / "data.parquet")
    return "data.parquet"


def aliases(folder):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]" for k in range(9)]
    (folder / "c.yaml").write_text("\n".join(lines))
    return "c.yaml"


def solver(folder, **change):
    fs.classical.midpoint(2).save(folder / "solver.json")
    content = json.loads((folder / "solver.json").read_text())
    (folder / "solver.json").write_text(json.dumps({**content, **change}))
    return "solver.json"


def text(folder, content):
    (folder / "solver.json").write_text(content)
    return "solver.json"


def network(folder, **arguments):
    path = folder / "net.safetensors"
    save_network(path, MLP((2,), width=8, blocks=1))
    config = network_config(path)
    weights = MLP((2,), width=8, blocks=1).state_dict()
    config["arguments"] |= arguments
    save_file(weights, path, {"fewstep.network": json.dumps(config)})
    return path.name


def header(folder):
    (folder / "net.safetensors").write_bytes(struct.pack("<Q", 90 * 10**6) + b'{"a":"' + b"x" * 90 * 10**6)
    return "net.safetensors"


def tensors(folder):
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    head = json.dumps({f"t{k}": empty for k in range(300_000)}).encode()
    (folder / "net.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    return "net.safetensors"


FILES = {
    "gz that claims it": (lambda f: gz(f, 2500 * MB), "claims to hold"),
    "gz that goes on": (lambda f: gz(f, 256), "goes on after the 256 bytes"),
    "npz that claims it": (
        lambda f: zipped(f, "a.npz", "x.npy", npy((2048, 1024, 1024)), 2048 * MB, 2048 * MB + 128),
        "claims to hold",
    ),
    "npz whose header claims more": (
        lambda f: plain(f, "a.npz", "x.npy", npy((10**9, 1024, 1024))),
        "header claims",
    ),
    "zip that claims it": (lambda f: zipped(f, "a.zip", "0.png", b"", 2048 * MB, 2048 * MB), "claims"),
    "zip that goes on": (lambda f: zipped(f, "a.zip", "0.png", b"", 2048 * MB, 64), "picture"),
    "picture": (lambda f: picture(f, 13_000), "13000 x 13000 pixels"),
    "parquet": (table, "claims to hold"),
    "yaml": (aliases, "alias"),
    "many rows": (lambda f: solver(f, C=[[0.0, 0.0]] * 10**6), "may have 100,000"),
    "many numbers": (lambda f: solver(f, C=[[0] * 12_000_000]), "may have 10,000,000"),
    "many texts": (lambda f: text(f, '""' * 23_000_000), "may have 4,400,000"),
    "escapes": (lambda f: text(f, '"' + '\\"' * 23_000_000), "not complete JSON"),
    "many tensors": (tensors, "may have 200,000"),
    "many names": (lambda f: solver(f, **{f"k{i}": i for i in range(300_000)}), "may have 200,000"),
    "long number": (lambda f: text(f, f'{{"nfe": 1{"0" * 400}}}'), "401 digits"),
    "open brackets": (lambda f: text(f, "[" * 200_000), "may have 100,000"),
    "nested brackets": (lambda f: text(f, '{"a":' + "[" * 90_000 + "]" * 90_000 + "}"), "nested deeper"),
    "large file": (lambda f: text(f, f'{{"a": "{"x" * 300_000_000}"}}'), "more than 50,000,000 bytes"),
    "long name": (lambda f: solver(f, **{"k" * 10**6: 1}), "has unknown keys 'kkk"),
    "many blocks": (lambda f: network(f, blocks=10**6), "far more layers"),
    "wide blocks": (lambda f: network(f, width=10**4), "far more numbers"),
    "long header": (header, "its header claims 90,000,000 bytes"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Error, megabytes and seconds of every file, all read by one process after its imports."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux, which says how much memory a process had at most")
    paths = {}
    for name, (make, _) in FILES.items():
        folder = tmp_path_factory.mktemp("file")
        paths[name] = folder / make(folder)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *map(str, paths.values())]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: (paths[name], *json.loads(line)) for name, line in zip(paths, lines, strict=True)}


@pytest.mark.parametrize("name", FILES)
def test_it_is_refused_by_name_soon_and_in_little_memory(refused, name):
    path, said, megabytes, seconds = refused[name]
    assert said is not None
    assert str(path) in said
    assert FILES[name][1] in said
    assert "\n" not in said
    assert len(said.replace(str(path.parent), "")) < 400
    assert megabytes < 200
    assert seconds < 2


def test_a_table_cannot_name_a_file_of_this_machine(tmp_path):
    secret = tmp_path / "secret.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(secret)
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    rows = arrow.array([{"bytes": None, "path": str(secret)}], kind)
    parquet.write_table(arrow.table({"image": rows}), tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=r"data\.parquet, row 0: .*must have the bytes of a picture"):
        fs.data.load(tmp_path / "data.parquet")


def test_postscript_named_png_is_not_run(tmp_path):
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (tmp_path / "0.png").write_bytes(program)
    with pytest.raises(ValueError, match=r"0\.png: .*none of PNG, JPEG, WEBP, BMP"):
        fs.data.load(tmp_path)
