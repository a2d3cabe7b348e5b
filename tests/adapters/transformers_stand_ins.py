"""Modules of diffusers' pipelines without ``transformers``.

They import it for names of text encoders alone; where it is not installed, stand-ins serve while they are
imported.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from unittest import mock

from diffusers import loaders
from diffusers.utils import import_utils

__all__ = ["pipeline_class", "quiet"]


class _StandIn(ModuleType):
    """A module of any classes and modules."""

    __version__, __path__ = "4.57.0", ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Finder:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in _MISSING else None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        pass


_MISSING = [name for name in ("transformers", "tokenizers") if find_spec(name) is None]


@contextmanager
def _stand_ins():
    if not _MISSING:
        yield
        return
    flags = {"_transformers_available": True, "_transformers_version": _StandIn.__version__}
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        with mock.patch.multiple(import_utils, **flags):
            for name in ("lora_pipeline", "single_file", "ip_adapter", "textual_inversion"):
                module = importlib.import_module(f"diffusers.loaders.{name}")
                for mixin in (key for key in vars(module) if key.endswith("Mixin")):
                    setattr(loaders, mixin, getattr(module, mixin))
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in _MISSING]:
            del sys.modules[name]


@contextmanager
def quiet():
    """Some modules of diffusers use its own deprecated classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pipeline_class(module, name):
    with _stand_ins():
        return getattr(importlib.import_module(f"diffusers.pipelines.{module}"), name)
