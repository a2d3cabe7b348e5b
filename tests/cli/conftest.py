"""Running the program inside the tests: its verbs, and its error exits."""

import json

import pytest

import fewstep as fs
from fewstep.cli import main


@pytest.fixture
def ended(tmp_path, monkeypatch, capsys):
    """Run a verb in an empty folder: exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["fewstep", *map(str, words)])
        try:
            main()
            status = 0
        except SystemExit as left:
            status = left.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def program(ended):
    """Run a verb that must succeed; with --json the result is parsed."""

    def run(*words):
        status, out, err = ended(*words)
        assert status == 0, out + err
        return json.loads(out) if "--json" in words else out

    return run


@pytest.fixture
def failure(ended):
    """Run a verb that must fail with status 2; the one line that it says."""

    def run(*words):
        status, out, err = ended(*words)
        assert (status, out) == (2, "")
        assert "Traceback" not in err
        return err

    return run


@pytest.fixture
def solver_file(tmp_path):
    path = tmp_path / "midpoint.json"
    fs.classical.midpoint(2).save(path)
    return path


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "own_model.py"
    path.write_text(
        "import fewstep as fs\n"
        "decay = fs.Field(lambda x, t: -x, shape=(2,), name='decay')\n"
        "nameless = fs.Field(lambda x, t: -x, shape=(2,))\n"
        "shapeless = fs.Field(lambda x, t: -x)\n"
        "number = 3\n"
        "def make():\n"
        "    return decay\n"
    )
    return path
