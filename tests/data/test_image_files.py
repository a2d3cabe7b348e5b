"""Pictures decoded on demand: folders, zip files, parquet."""

from __future__ import annotations

import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import fewstep as fs


def levels(data):
    return data[range(len(data))].numpy()


@pytest.fixture
def table(tmp_path, encoded):
    """``table(name, pictures, column="image")``: a parquet file as Hugging Face writes it."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def make(name, pictures, column="image"):
        rows = [
            {"bytes": x if isinstance(x, bytes | None) else encoded(x), "path": f"{k}.png"}
            for k, x in enumerate(pictures)
        ]
        path = tmp_path / "tables" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        struct = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        columns = {column: arrow.array(rows, struct), "label": list(range(len(rows)))}
        parquet.write_table(arrow.table(columns), path)
        return path

    return make


@pytest.mark.parametrize("kind", ["folder", "zip"])
class TestFilesOfAFolderOrZip:
    def test_every_format_below_the_folder_sorted(self, lay, pictures, encoded, kind):
        x = pictures(4)
        files = {
            "b/z.PNG": x[1],
            "b/deep/er/a.bmp": encoded(x[0], "BMP"),
            "c.WebP": encoded(x[2], "WEBP", lossless=True),
            "d.png": x[3],
            "notes.txt": b"not a picture",
            ".hidden.png": b"",
            "__MACOSX/._d.png": b"",
        }
        data = fs.data.load(lay(kind, files))
        assert (len(data), data.shape) == (4, (3, 8, 8))
        assert np.array_equal(levels(data), x.transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("suffix", ["jpg", "JPEG"])
    def test_jpeg(self, lay, encoded, kind, suffix):
        flat = np.full((8, 8, 3), (200, 100, 50), np.uint8)
        data = fs.data.load(lay(kind, {f"a.{suffix}": encoded(flat, "JPEG", quality=95)}))
        assert np.abs(levels(data)[0].astype(int) - flat.transpose(2, 0, 1)).max() <= 2

    @pytest.mark.parametrize("top", ["", "inner/"])
    def test_splits_are_folders(self, lay, pictures, kind, top):
        x = pictures(4)
        path = lay(kind, {top + name: x[k] for k, name in enumerate(["train/cat/0.png", "train/1.png"])})
        assert len(fs.data.load(path)) == 2
        names = ["train/cat/0.png", "train/dog/1.png", "test/0.png", "val/0.png"]
        path = lay(kind, {top + name: x[k] for k, name in enumerate(names)} | {f"{top}train/1.png": x[1]})
        assert [len(fs.data.load(path, split=s)) for s in ("train", "test", "validation")] == [3, 1, 1]
        assert np.array_equal(levels(fs.data.load(path, split="test"))[0], x[2].transpose(2, 0, 1))
        with pytest.raises(ValueError, match="has no split 'dev', only 'test' and 'train' and 'validation'"):
            fs.data.load(path, split="dev")

    @pytest.mark.parametrize(
        "names",
        [
            ("Train", "Test", "Val"),
            ("training", "testing", "valid"),
            ("trainset", "testset", "Validation"),
            ("TRAIN_SET", "test-set", "validation set"),
        ],
    )
    def test_splits_have_many_names(self, lay, pictures, kind, names):
        x = pictures(6)
        counts = dict(zip(names, (3, 2, 1), strict=True))
        files = [f"{name}/{k}.png" for name, count in counts.items() for k in range(count)]
        path = lay(kind, dict(zip(files, x, strict=True)))
        assert [len(fs.data.load(path, split=s)) for s in ("train", "test", "validation")] == [3, 2, 1]

    def test_words_that_only_begin_like_splits_are_none(self, lay, pictures, kind):
        path = lay(
            kind, {f"{name}/0.png": x for name, x in zip(("trains", "tested"), pictures(2), strict=True)}
        )
        assert len(fs.data.load(path)) == 2

    def test_files_that_look_like_pictures_and_are_not_read_are_named(self, lay, pictures, kind):
        path = lay(kind, {"a.png": pictures(1)[0], "b.TIF": b"", "c/d.gif": b"", "e.txt": b""})
        with pytest.warns(UserWarning, match=r"files, so 2 files such as b\.TIF will not be read; convert"):
            assert len(fs.data.load(path)) == 1

    def test_nothing_but_pictures_that_are_not_read(self, lay, kind):
        with pytest.raises(ValueError, match=r"holds no pictures \(\.png.*\), only b\.tiff; convert"):
            fs.data.load(lay(kind, {"b.tiff": b"", "c.txt": b""}))

    def test_no_splits_means_all_for_training(self, lay, pictures, kind):
        path = lay(kind, {"a/0.png": pictures(1)[0], "test/1.png": pictures(1)[0]})
        assert len(fs.data.load(path)) == 2
        with pytest.raises(ValueError, match="has no split 'test', only 'train'"):
            fs.data.load(path, split="test")

    def test_files_beside_the_splits_are_not_dropped_in_silence(self, lay, pictures, kind):
        path = lay(kind, {"train/0.png": pictures(1)[0], "zebra/1.png": pictures(1)[0]})
        with pytest.raises(ValueError, match=r"files outside train/, .* such as zebra/1\.png"):
            fs.data.load(path)

    def test_a_picture_that_differs_is_named_with_the_first(self, lay, pictures, kind):
        path = lay(kind, {"a.png": pictures(1)[0], "b.png": pictures(1)[0], "c.png": pictures(1, size=9)[0]})
        data = fs.data.load(path)
        with pytest.raises(
            ValueError, match=r"c\.png: a picture of 9 x 9 pixels and 3 channels, but .*a\.png, has 8"
        ):
            data.check()
        assert fs.data.load(path, resolution=8).check() is None
        path = lay(kind, {"b.png": pictures(1, channels=1)[0]} | {"a.png": pictures(1)[0]})
        with pytest.raises(ValueError, match=r"b\.png: .* and 1 channel, but"):
            fs.data.load(path, resolution=8).check()
        fs.data.load(path, resolution=8, channels=3).check()

    def test_a_damaged_picture_is_named(self, lay, pictures, encoded, kind):
        good = encoded(pictures(1, size=32)[0])
        bad = {
            "cut": good[: len(good) // 2],
            "empty": b"",
            "text": b"GIF? no",
            "zeros": good[:60] + bytes(99),
        }
        for name, content in bad.items():
            data = fs.data.load(lay(kind, {"0.png": good, f"{name}.png": content}))
            with pytest.raises(
                ValueError, match=rf"{name}\.png: cannot be read as a picture \(.+\); replace"
            ):
                data[[0, 1]]
            shutil.rmtree(data._records.root) if kind == "folder" else None

    def test_a_damaged_first_picture_stops_loading(self, lay, kind):
        with pytest.raises(
            ValueError, match=r"0\.png: cannot be read as a picture \(it is none of PNG, JPEG, WEBP, BMP\)"
        ):
            fs.data.load(lay(kind, {"0.png": b"nothing"}))

    def test_nothing_there(self, lay, kind):
        with pytest.raises(ValueError, match=r"holds no pictures \(\.png"):
            fs.data.load(lay(kind, {"notes.txt": b""}))

    def test_the_fingerprint_knows_contents_and_form_but_not_the_place(self, lay, tmp_path, pictures, kind):
        x = pictures(3)
        path = lay(kind, {f"{k}.png": x[k] for k in range(3)})
        fingerprint = fs.data.load(path).fingerprint()
        moved = path.rename(tmp_path / ("moved" + path.suffix))
        assert fs.data.load(moved).fingerprint() == fingerprint
        others = [fs.data.load(moved, resolution=4), fs.data.load(moved, channels=1)]
        found = {fingerprint, *(other.fingerprint() for other in others)}
        for order in ((0, 2, 1), (0, 0, 0)):
            other = fs.data.load(lay(kind, {f"{place}.png": x[k] for place, k in enumerate(order)}))
            found.add(other.fingerprint())
        assert len(found) == 5

    @pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    def test_workers_read_what_the_process_reads(self, lay, pictures, kind, context):
        data = fs.data.load(lay(kind, {f"{k}.png": x for k, x in enumerate(pictures(8))}))
        assert torch.equal(pickle.loads(pickle.dumps(data))[[3]], data[[3]])
        batches = [[0, 1], [5, 2, 7], [6]]
        loader = DataLoader(
            data, sampler=batches, batch_size=None, num_workers=2, multiprocessing_context=context
        )
        for batch, indices in zip(loader, batches, strict=True):
            assert torch.equal(batch, data[torch.tensor(indices)])


def test_links_that_lead_back_are_followed_once(lay, pictures, tmp_path):
    x = pictures(5)
    path = lay("folder", {"train/0.png": x[0], "train/1.png": x[1], "test/2.png": x[2]})
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "folder" / "train" / "1.png").rename(tmp_path / "1.png")
    elsewhere.mkdir()
    (tmp_path / "1.png").rename(elsewhere / "1.png")
    # Before train/ in the alphabet, and still read at its own place.
    for link, target in (("a", path / "train"), ("train/up", path), ("train/z", elsewhere)):
        (path / link).symlink_to(target)
    (elsewhere / "back").symlink_to(path)
    with pytest.warns(UserWarning, match=r"a, train/up, train/z/back: links to folders that are"):
        data = fs.data.load(path)
    assert np.array_equal(levels(data), x[:2].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("target", ["gone.png", "itself.png"])
def test_a_link_that_leads_nowhere_is_named(lay, pictures, target):
    path = lay("folder", {"a.png": pictures(1)[0]})
    for name in ("itself.png", "z.png"):
        (path / name).symlink_to(target)
    with pytest.raises(
        ValueError, match=rf"itself\.png \(and 1 more\) is a link to {target}, which is not there"
    ):
        fs.data.load(path)


def test_another_process_opens_the_zip_file_for_itself(lay, pictures, monkeypatch):
    records = fs.data.load(lay("zip", {"0.png": pictures(1)[0]}))._records
    ours = records._archive
    assert records._archive is ours
    monkeypatch.setattr("os.getpid", lambda: -1)  # what a forked worker finds
    assert records._archive is not ours


def test_a_damaged_zip_member_is_named(lay, pictures, encoded):
    path = lay("zip", {"0.png": pictures(1)[0], "1.png": pictures(1, size=30)[0]})
    content = path.read_bytes()
    start = content.index(encoded(pictures(1, size=30)[0])[:200])
    path.write_bytes(content[: start + 300] + bytes(50) + content[start + 350 :])
    with pytest.raises(ValueError, match=r"data\.zip, member 1\.png: not a readable picture \(Bad CRC-32"):
        fs.data.load(path)[[1]]
    path.write_bytes(content[:-40])
    with pytest.raises(ValueError, match=r"data\.zip: not a readable zip file"):
        fs.data.load(path)


def test_a_file_that_vanished_is_named(lay, pictures):
    path = lay("folder", {"0.png": pictures(1)[0], "1.png": pictures(1)[0]})
    data = fs.data.load(path)
    (path / "1.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{re.escape(str(path / '1.png'))}: there is no such picture"
    ):
        data[[1]]


class TestParquet:
    @pytest.mark.parametrize("column", ["image", "img", "photo"])
    def test_one_file(self, hub_cache, table, pictures, column):
        x = pictures(3)
        path = table("data.parquet", x, column)
        data = fs.data.load(path)
        assert np.array_equal(levels(data), x.transpose(0, 3, 1, 2))
        assert torch.equal(pickle.loads(pickle.dumps(data))[[2, 0]], data[[2, 0]])
        assert fs.data.load(path, channels=1).fingerprint() != data.fingerprint()
        with pytest.raises(ValueError, match="has no split 'test', only 'train'"):
            fs.data.load(path, split="test")

    def test_a_folder_with_splits_in_the_names(self, hub_cache, table, pictures):
        x = pictures(5)
        table("data/train-00000-of-00002.parquet", x[:2])
        table("data/train-00001-of-00002.parquet", x[2:4])
        folder = table("data/test-00000-of-00001.parquet", x[4:]).parents[1]
        assert np.array_equal(levels(fs.data.load(folder)), x[:4].transpose(0, 3, 1, 2))
        assert np.array_equal(levels(fs.data.load(folder, split="test")), x[4:].transpose(0, 3, 1, 2))

    def test_damage_is_named(self, hub_cache, table, pictures):
        path = table("data.parquet", [pictures(1)[0], b"nothing", None])
        data = fs.data.load(path)
        with pytest.raises(ValueError, match=r"data\.parquet, row 1: cannot be read as a picture"):
            data[[1]]
        with pytest.raises(ValueError, match=r"data\.parquet, row 2: .*must have the bytes of a picture"):
            data[[2]]
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ValueError, match=r"data\.parquet: not a readable parquet file"):
            fs.data.load(path)

    def test_a_file_damaged_within_is_named(self, hub_cache, table, pictures):
        path = table("data.parquet", pictures(40))
        content = path.read_bytes()
        path.write_bytes(content[:10] + bytes(200) + content[210:])
        with pytest.raises(ValueError, match=r"data\.parquet: not a readable table of pictures \("):
            fs.data.load(path)

    def test_no_column_of_pictures(self, tmp_path):
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"text": ["a"], "label": [0]}), tmp_path / "a.parquet")
        with pytest.raises(
            ValueError, match=r"a\.parquet: must have one column .* among its columns text, label"
        ):
            fs.data.load(tmp_path / "a.parquet")

    def test_pictures_and_tables_together_are_ambiguous(self, table, pictures, encoded):
        folder = table("data.parquet", pictures(1)).parent
        (folder / "preview.png").write_bytes(encoded(pictures(1)[0]))
        with pytest.raises(ValueError, match="holds both images and parquet files"):
            fs.data.load(folder)


class TestForm:
    def load(self, lay, content, **form):
        return fs.data.load(lay("folder", {"a.png": content}), **form)

    def test_the_central_square_is_kept(self, lay):
        x = np.random.default_rng(0).integers(0, 256, (6, 11, 3), dtype=np.uint8)
        assert np.array_equal(levels(self.load(lay, x, resolution=6))[0], x[:, 2:8].transpose(2, 0, 1))
        small = levels(self.load(lay, x.transpose(1, 0, 2), resolution=3))[0]
        square = Image.fromarray(np.ascontiguousarray(x.transpose(1, 0, 2)[2:8]))
        theirs = np.array(square.resize((3, 3), Image.Resampling.LANCZOS))
        assert np.array_equal(small, theirs.transpose(2, 0, 1))

    def test_shrinking_does_not_alias(self, lay):
        stripes = np.zeros((64, 64), np.uint8)
        stripes[:, ::2] = 255
        x = levels(self.load(lay, stripes, resolution=8))[0, 0, 2:-2, 2:-2]
        assert np.abs(x.astype(int) - 127.5).max() < 5

    @pytest.mark.parametrize(
        ("mode", "shape", "options"),
        [
            ("1", (1, 5, 5), {}),
            ("L", (1, 5, 5), {}),
            ("LA", (2, 5, 5), {}),
            ("P", (3, 5, 5), {}),
            ("P", (4, 5, 5), {"transparency": 0}),
            ("RGB", (3, 5, 5), {}),
            ("RGBA", (4, 5, 5), {}),
        ],
    )
    def test_channels_are_kept_unless_asked_for(self, lay, encoded, mode, shape, options):
        content = encoded(Image.new(mode, (5, 5), 1), **options)
        assert self.load(lay, content).shape == shape
        assert self.load(lay, content, channels=3).shape == (3, 5, 5)
        assert self.load(lay, content, channels=1, resolution=4).shape == (1, 4, 4)

    def test_grey_and_colour(self, lay):
        x = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        grey = levels(self.load(lay, x, channels=1))[0, 0].astype(float)
        assert np.abs(grey - x @ [0.299, 0.587, 0.114]).max() < 1  # ITU-R BT.601
        colour = levels(self.load(lay, x[..., 0], channels=3))[0]
        assert np.array_equal(colour, np.stack([x[..., 0]] * 3))

    def test_photographs_are_turned_upright(self, lay, encoded):
        x = np.zeros((4, 6), np.uint8)
        x[0] = 255
        exif = Image.Exif()
        exif[0x0112] = 6  # "the top row is the right side"
        upright = levels(self.load(lay, encoded(x, exif=exif)))[0, 0]
        assert np.array_equal(upright, np.rot90(x, -1))

    def test_sixteen_bits_are_refused(self, lay, encoded):
        content = encoded(Image.fromarray(np.zeros((4, 4), np.uint16)))
        with pytest.raises(ValueError, match=r"a\.png: an image of mode I;16; convert it to 8 bits"):
            self.load(lay, content)

    @pytest.mark.parametrize(
        ("form", "message"),
        [({"resolution": 0}, "at least 1, or None, not 0"), ({"channels": 2}, "or None, not 2")],
    )
    def test_impossible_forms(self, form, message):
        with pytest.raises(ValueError, match=message):
            fs.data.load("digits", **form)
