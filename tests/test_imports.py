"""Imports run one way: no circles, nothing that imports the package's own face, and torch only when used."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fewstep as fs

ROOT = Path(fs.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imports(name, tree):
    """The modules of the package that a module imports, in functions too, but not for types alone."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    found, waiting = set(), [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*parts, *([node.module] if node.module else [])])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fewstep":
            source = node.module
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "fewstep"}
            continue
        else:
            continue
        names = {f"{source}.{alias.name}" for alias in node.names}
        found |= {full if full in FILES else source for full in names}
    return found


GRAPH = {name: imports(name, ast.parse(path.read_text("utf-8"))) for name, path in FILES.items()}


def part(name):
    """The folder, or the module, right below the package."""
    return ".".join(name.split(".")[:2])


def test_no_modules_import_each_other():
    TopologicalSorter(GRAPH).prepare()


def test_no_packages_import_each_other():
    parts = {}
    for name, found in GRAPH.items():
        parts.setdefault(part(name), set()).update({part(other) for other in found} - {part(name)})
    TopologicalSorter(parts).prepare()


def test_nothing_imports_the_face_of_the_package():
    assert [name for name, found in GRAPH.items() if "fewstep" in found] == []


def test_circles_hidden_in_functions_count_but_not_those_of_types():
    lazy = ast.parse("def f():\n    from ..solver import Solver")
    typed = ast.parse("if TYPE_CHECKING:\n    from ..solver import Solver")
    face = ast.parse("from .. import __version__, pairs")
    assert imports("fewstep.cli.fid", lazy) == {"fewstep.solver"}
    assert imports("fewstep.cli.fid", typed) == set()
    assert imports("fewstep.cli.fid", face) == {"fewstep", "fewstep.pairs"}
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


@pytest.mark.parametrize(
    "use",
    [
        "import fewstep; assert 'Solver' in dir(fewstep)",
        "import sys; sys.argv = ['fewstep', '--help']; from fewstep.cli import main; main()",
        "import sys; sys.argv = ['fewstep', '--version']; from fewstep.cli import main; main()",
    ],
)
def test_torch_is_loaded_when_it_is_used(use):
    code = f"import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))\n{use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(fs, name) is not None for name in fs.__all__)
    assert fs.__all__ == sorted(fs.__all__, key=lambda name: (name.islower(), name))
    with pytest.raises(AttributeError, match="'fewstep' has no attribute 'nonsense'"):
        _ = fs.nonsense
