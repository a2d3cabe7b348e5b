"""Running the program inside the tests: its verbs, and its error exits."""

import json

import pytest
from typer.testing import CliRunner

import fewstep as fs
from fewstep.cli import main
from fewstep.cli._app import app


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Run a verb that must succeed, in an empty folder; with --json the result is parsed."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout) if "--json" in words else result.stdout

    return run


@pytest.fixture
def failure(tmp_path, monkeypatch, capsys):
    """Run a verb that must fail with status 2; the one line that it says."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["fewstep", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert ended.value.code == 2
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return captured.err

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
