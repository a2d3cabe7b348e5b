import pytest
import torch

from fewstep._device import check_device, widest


def test_a_device_that_is_there():
    assert check_device("cpu") == check_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(
        ValueError, match=rf"^device: '{name}' cannot be used \(.*\); this machine has cpu"
    ) as raised:
        check_device(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["gpu", "", "cpu:x"])
def test_a_word_that_is_no_device(name):
    with pytest.raises(ValueError, match=rf"device: '{name}' cannot be used .* this machine has cpu"):
        check_device(name)


def test_apples_processors_have_no_float64():
    assert widest(torch.device("mps")) == torch.float32
    assert widest(torch.device("cpu")) == widest(torch.device("cuda")) == torch.float64
