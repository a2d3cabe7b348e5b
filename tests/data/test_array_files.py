"""Files of arrays: npz, idx, CIFAR-10's binary files and sprites, each written by the test."""

from __future__ import annotations

import gzip
import re
import struct

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs


def levels(data):
    return data[range(len(data))].numpy()


class TestNpz:
    def save(self, tmp_path, **arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    def test_training_and_test_arrays(self, tmp_path, pictures):
        train, test = pictures(5, channels=1), pictures(3, channels=1)
        path = self.save(tmp_path, x_train=train, y_train=np.arange(5), x_test=test, y_test=np.arange(3))
        assert np.array_equal(levels(fs.data.load(path)), train[:, None])
        assert np.array_equal(levels(fs.data.load(path, split="test")), test[:, None])
        assert fs.data.load(path).name == "data.npz"
        with pytest.raises(ValueError, match="has no split 'validation', only 'train' and 'test'"):
            fs.data.load(path, split="validation")

    @pytest.mark.parametrize("key", ["images", "data", "arr_0", "anything"])
    def test_one_array_is_for_training(self, tmp_path, pictures, key):
        x = pictures(4)
        path = self.save(tmp_path, **{key: x})
        assert np.array_equal(levels(fs.data.load(path)), x.transpose(0, 3, 1, 2))
        with pytest.raises(ValueError, match="has no split 'test', only 'train'"):
            fs.data.load(path, split="test")

    def test_labels_beside_the_pictures_are_ignored(self, tmp_path, pictures):
        path = self.save(tmp_path, images=pictures(4), labels=np.arange(4))
        assert len(fs.data.load(path)) == 4

    def test_of_several_unknown_arrays_none_is_guessed(self, tmp_path, pictures):
        path = self.save(tmp_path, left=pictures(4), right=pictures(4))
        with pytest.raises(ValueError, match="holds the arrays left, right; name the pictures x_train"):
            fs.data.load(path)

    @pytest.mark.parametrize(
        ("given", "shape"),
        [
            ((7, 9, 8), (1, 9, 8)),
            ((7, 9, 8, 3), (3, 9, 8)),
            ((7, 3, 9, 8), (3, 9, 8)),
            ((7, 4, 9, 8), (4, 9, 8)),
            ((7, 9, 8, 1), (1, 9, 8)),
            ((7, 3, 8, 4), (4, 3, 8)),  # the last axis goes first where both fit
        ],
    )
    def test_layouts(self, tmp_path, given, shape):
        x = np.random.default_rng(0).integers(0, 256, given, dtype=np.uint8)
        data = fs.data.load(self.save(tmp_path, x_train=x))
        assert data.shape == shape
        channels_first = x.reshape(7, *shape) if given[1:] in (shape, shape[1:]) else np.moveaxis(x, 3, 1)
        assert np.array_equal(levels(data), channels_first)

    @pytest.mark.parametrize("shape", [(6, 2), (6, 3, 5), (6, 3, 4, 4)])
    def test_floats_are_taken_as_they_stand(self, tmp_path, shape):
        x = np.random.default_rng(0).standard_normal(shape)
        data = fs.data.load(self.save(tmp_path, data=x))
        assert data.shape == shape[1:]
        assert np.array_equal(levels(data), x.astype(np.float32))

    def test_floats_have_no_other_size(self, tmp_path):
        path = self.save(tmp_path, data=np.zeros((2, 1, 8, 8)))
        assert fs.data.load(path, resolution=8, channels=1).shape == (1, 8, 8)
        with pytest.raises(ValueError, match=r"only 8-bit images can be resized .* leave resolution"):
            fs.data.load(path, resolution=16)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.zeros((5, 8, 8), np.int64), "not int64"),
            (np.zeros((5, 8), np.uint8), r"not uint8 of shape \(5, 8\)"),
            (
                np.zeros((5, 8, 8, 8), np.uint8),
                r"no axis of its shape \(5, 8, 8, 8\) can be the 1, 3 or 4 channels",
            ),
            (np.array([{}]), r" is of type object"),
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path, x, message):
        with pytest.raises(ValueError, match=rf"data\.npz.*array 'data'.*{message}"):
            fs.data.load(self.save(tmp_path, data=x))

    def test_damage_is_named(self, tmp_path, pictures):
        path = self.save(tmp_path, data=pictures(400))
        content = path.read_bytes()
        path.write_bytes(content[:-200])
        with pytest.raises(ValueError, match=r"data\.npz: not a readable npz file"):
            fs.data.load(path)
        path.write_bytes(content[:5000] + bytes(100) + content[5100:])
        with pytest.raises(ValueError, match=r"not a readable npz file .*CRC"):
            fs.data.load(path)


def idx(x):
    return struct.pack(">4B3I", 0, 0, 8, 3, *x.shape) + x.tobytes()


class TestIdx:
    def test_a_folder_of_mnist_gzipped_or_not(self, tmp_path, pictures):
        train, test = pictures(5, channels=1), pictures(3, channels=1)
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(train))
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(test)))
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"")
        assert np.array_equal(levels(fs.data.load(tmp_path)), train[:, None])
        assert np.array_equal(levels(fs.data.load(tmp_path, split="test")), test[:, None])

    @pytest.mark.parametrize("name", ["train-images.idx3-ubyte", "some.idx", "t10k-images-idx3-ubyte.gz"])
    def test_a_single_file(self, tmp_path, pictures, name):
        x = pictures(4, channels=1)
        content = gzip.compress(idx(x)) if name.endswith(".gz") else idx(x)
        (tmp_path / name).write_bytes(content)
        assert np.array_equal(levels(fs.data.load(tmp_path / name)), x[:, None])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x: b"\0\0\x08\x01" + x[4:], "begins with 00 00 08 01, not with 00 00 08 03"),
            (lambda x: x[:-1], "has 271 bytes, but its header needs 272"),
            (lambda x: x[:9], "has 9 bytes"),
            (lambda x: b"", "begins with , not with"),
        ],
    )
    def test_damage_is_named(self, tmp_path, pictures, change, message):
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(change(idx(pictures(4, channels=1))))
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{message}"):
            fs.data.load(tmp_path)

    @pytest.mark.parametrize("keep", [-20, 6])
    def test_damaged_gzip_is_named(self, tmp_path, pictures, keep):
        path = tmp_path / "some.idx.gz"
        path.write_bytes(gzip.compress(idx(pictures(4, channels=1)))[:keep])
        with pytest.raises(ValueError, match=r"some\.idx\.gz: not a readable idx file"):
            fs.data.load(path)


class TestCifar:
    def binary(self, x):
        rows = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return np.concatenate([np.arange(len(x), dtype=np.uint8)[:, None] % 10, rows], 1).tobytes()

    def test_binary_files_in_the_order_of_their_numbers(self, tmp_path, pictures):
        x = pictures(24, size=32)
        for k in range(12):  # 10 comes after 9, not after 1
            (tmp_path / f"data_batch_{k + 1}.bin").write_bytes(self.binary(x[2 * k : 2 * k + 2]))
        (tmp_path / "test_batch.bin").write_bytes(self.binary(x[:3]))
        assert np.array_equal(levels(fs.data.load(tmp_path)), x.transpose(0, 3, 1, 2))
        assert np.array_equal(levels(fs.data.load(tmp_path, split="test")), x[:3].transpose(0, 3, 1, 2))
        assert len(fs.data.load(tmp_path / "data_batch_3.bin")) == 2

    def test_a_missing_or_broken_file_is_named(self, tmp_path, pictures):
        content = self.binary(pictures(2, size=32))
        for k in (1, 3):
            (tmp_path / f"data_batch_{k}.bin").write_bytes(content)
        with pytest.raises(ValueError, match="number 2 of the train files is missing"):
            fs.data.load(tmp_path)
        for broken in (content[:-1], b"\x0a" + content[1:], b""):
            (tmp_path / "data_batch_2.bin").write_bytes(broken)
            with pytest.raises(ValueError, match=r"data_batch_2\.bin: is not a complete file of CIFAR-10"):
                fs.data.load(tmp_path)

    def test_sprites(self, tmp_path, pictures, encoded):
        x = pictures(2000, size=32)
        for k, part in enumerate((x[:1000], x[1000:])):
            sheet = Image.new("RGB", (1280, 800))
            for i, picture in enumerate(part):
                sheet.paste(Image.fromarray(picture), (i % 40 * 32, i // 40 * 32))
            (tmp_path / f"train_{k:02}.webp").write_bytes(encoded(sheet, "WEBP", lossless=True, quality=0))
        np.savez(tmp_path / "labels.npz", y_train=np.zeros(2000))
        data = fs.data.load(tmp_path)
        assert np.array_equal(levels(data), x.transpose(0, 3, 1, 2))
        with pytest.raises(ValueError, match="has no split 'test', only 'train'"):
            fs.data.load(tmp_path, split="test")
        (tmp_path / "train_01.webp").write_bytes(encoded(x[0], "WEBP"))
        with pytest.raises(
            ValueError, match=r"train_01\.webp: a CIFAR-10 sprite must be 1280 x 800 in RGB, not 32 x 32"
        ):
            fs.data.load(tmp_path)

    def test_pictures_with_the_names_of_sprites_are_pictures(self, lay, pictures, encoded):
        files = {f"train_{k:02}.webp": encoded(x, "WEBP") for k, x in enumerate(pictures(3))}
        assert fs.data.load(lay("folder", files)).shape == (3, 8, 8)


def test_arrays_are_resized_and_converted_like_single_pictures(tmp_path, pictures):
    x = pictures(3, size=12)
    np.savez(tmp_path / "x.npz", data=x)
    grey = fs.data.load(tmp_path / "x.npz", resolution=6, channels=1)
    assert grey.shape == (1, 6, 6)
    for ours, picture in zip(levels(grey), x, strict=True):
        theirs = Image.fromarray(picture).convert("L").resize((6, 6), Image.Resampling.LANCZOS)
        assert np.array_equal(ours[0], np.array(theirs))
    np.savez(tmp_path / "x.npz", data=x[..., 0])
    colour = levels(fs.data.load(tmp_path / "x.npz", channels=3))
    assert np.array_equal(colour, np.repeat(x[:, None, :, :, 0], 3, 1))


def test_the_real_mnist(shared):
    train, test = fs.data.load(shared / "mnist.npz"), fs.data.load(shared / "mnist.npz", split="test")
    assert (len(train), len(test), train.shape) == (60000, 10000, (1, 28, 28))
    # Mean and standard deviation of the training pictures, as quoted everywhere.
    x = train[range(60000)].float() / 255
    torch.testing.assert_close(
        torch.stack([x.mean(), x.std()]), torch.tensor([0.1307, 0.3081]), atol=5e-5, rtol=0
    )


def test_the_real_cifar10(shared):
    data = fs.data.load(shared / "cifar10", split="test")
    assert (len(data), data.shape) == (10000, (3, 32, 32))
    mean = data[range(10000)].float().mean((0, 2, 3)) / 255
    # Means of the test pictures; those of training are .4914, .4822, .4465.
    torch.testing.assert_close(mean, torch.tensor([0.4942, 0.4851, 0.4504]), atol=2e-4, rtol=0)
