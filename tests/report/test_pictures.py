import numpy as np
import pytest
import torch
from matplotlib import image

import fewstep as fs
from fewstep.data import is_picture, save_pictures, sheet_levels
from fewstep.report import picture_rows


def tinted(count, channels=1, size=2):
    """Pictures of one value each, -1 to 1 in even steps."""
    values = torch.linspace(-1, 1, count)
    return values[:, None, None, None].expand(count, channels, size, size).clone()


def test_column_k_shows_sample_k_of_every_row(tmp_path):
    figure = picture_rows({"up": tinted(5), "down": tinted(5).flip(0)}, {"up": "RMSE 1"})
    figure.savefig(tmp_path / "rows.png")
    up, down = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    for k, level in enumerate((0, 64, 128, 191, 255)):
        assert (up[:, 3 * k : 3 * k + 2] == level).all()
        assert (down[:, 3 * (4 - k) :][:, :2] == level).all()
    assert [axes.get_ylabel() for axes in figure.axes] == ["up\nRMSE 1", "down"]


def test_pixels_read_back_are_those_of_the_samples_in_reading_order(tmp_path):
    samples = torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_pictures(tmp_path / "new" / "sheet.png", samples, columns=3)
    sheet = image.imread(tmp_path / "new" / "sheet.png")[..., 0]
    assert sheet.shape == (2 * 4 - 1, 3 * 5 - 1)
    for k in range(5):
        top, left = 4 * (k // 3), 5 * (k % 3)
        pixels = sheet[top : top + 3, left : left + 4]
        np.testing.assert_allclose(pixels, samples[k, 0].numpy() / 2 + 0.5, atol=0.5 / 255 + 1e-6)
    assert (sheet[3] == 1).all()
    assert (sheet[4:, 10:] == 1).all()


def test_the_scale_is_absolute_and_values_outside_are_clipped(tmp_path):
    """A dull picture stays dull: 0 is middle grey, whatever else there is."""
    save_pictures(tmp_path / "grey.png", torch.tensor([0.0, 0.0, -9.0, 9.0]).reshape(4, 1, 1, 1), columns=4)
    row = image.imread(tmp_path / "grey.png")[0, ::2, 0]
    np.testing.assert_allclose(row, [0.5, 0.5, 0, 1], atol=1 / 255)


def test_colours_stay_in_their_channels(tmp_path):
    red = torch.full((1, 3, 2, 2), -1.0)
    red[:, 0] = 1
    save_pictures(tmp_path / "red.png", red)
    np.testing.assert_array_equal(image.imread(tmp_path / "red.png")[..., :3], [[[1, 0, 0]] * 2] * 2)


def test_the_sheet_is_square_by_default(tmp_path):
    save_pictures(tmp_path / "sheet.png", tinted(9))
    assert image.imread(tmp_path / "sheet.png").shape[:2] == (8, 8)


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((1, 8, 8), True), ((3, 8, 8), True), ((2, 8, 8), False), ((24,), False), (None, False)],
)
def test_what_can_be_shown(shape, shown):
    assert is_picture(shape) is shown


def test_a_sheet_has_the_nearest_levels_and_white_gaps():
    levels = torch.arange(256.0)
    samples = ((levels + 0.4) / 127.5 - 1).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)
    samples[:, 2] = 7
    sheet = sheet_levels(samples, columns=2)
    assert (sheet.dtype, sheet.shape) == (torch.uint8, (16, 33, 3))
    assert torch.equal(sheet[:, 17:, 0].flatten(), levels.byte())
    assert (sheet[..., 2] == 255).all()
    assert (sheet[:, 16] == 255).all()
    assert torch.equal(sheet_levels(fs.data.to_uint8(samples), columns=2), sheet)
