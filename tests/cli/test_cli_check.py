import numpy as np
import pytest

import fewstep as fs


@pytest.fixture
def checked(ended):
    """Run the verb; what it printed, and its exit status."""

    def run(*words):
        status, out, _ = ended("check", *words)
        return out, status

    return run


@pytest.fixture
def mistaken(tmp_path):
    """A file with the bundled digits told the time backwards; and without a shape."""
    path = tmp_path / "checked_model.py"
    path.write_text(
        "import fewstep as fs\n"
        "flow = fs.models.bundled('digits')\n"
        "backwards = fs.Field(flow.model, shape=flow.shape, clock=(1, 0), name='backwards')\n"
        "shapeless = fs.Field(flow.model)\n"
    )
    return path


def test_a_bundled_model_passes(checked):
    text, status = checked("digits", "--data", "digits")
    assert status == 0
    assert "judged on real data: 128 at a time" in text
    assert "ok: nothing speaks against how it is wired" in text


def test_without_data(program):
    result = program("check", "digits", "--json")
    assert result["ok"] is True
    assert result["data"] is False


def test_a_mistake_is_named_and_ends_in_status_1(checked, mistaken):
    text, status = checked(f"{mistaken}:backwards", "--data", "digits", "--samples", 64)
    assert status == 1
    assert "the network seems to expect the clock (0, 1), not (1, 0)" in text


def test_data_by_path(checked, tmp_path):
    np.savez(tmp_path / "own.npz", images=fs.data.digits()[0][:100].numpy())
    text, status = checked("digits", "--data", tmp_path / "own.npz")
    assert status == 0
    assert "judged on real data: 100 at a time" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("mixture", "--data", "digits"),
            "--data: digits holds samples of shape (1, 8, 8), but mixture",
        ),
        (
            ("digits", "--data", "dogits"),
            "error: --data: dogits: there is no such path, and the name of data must",
        ),
        (("nothing",), "MODEL: 'nothing' is not bundled"),
    ],
)
def test_other_mistakes_are_one_line_and_status_2(failure, words, message):
    assert message in failure("check", *words)


def test_a_field_without_a_shape(failure, mistaken):
    assert "does not say what shape it samples" in failure("check", f"{mistaken}:shapeless")


def test_data_tell_the_shape(checked, mistaken):
    assert checked(f"{mistaken}:shapeless", "--data", "digits")[1] == 0


@pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="notes are of Python 3.11")
def test_an_error_of_the_network_says_what_it_was_called_with(failure, tmp_path):
    (tmp_path / "wide.py").write_text(
        "import torch, fewstep as fs\n"
        "linear = torch.nn.Linear(3, 3).eval()\n"
        "field = fs.Field(lambda x, t: linear(x), shape=(2,), name='wide')\n"
    )
    text = failure("sample", "wide.py:field", "euler:2", "--count", 4)
    assert text.startswith("error: ")
    assert "mat1 and mat2 shapes cannot be multiplied" in text
    assert "call of the network with x of shape (4, 2) and type float32" in text
