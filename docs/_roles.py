"""Turns the roles of Sphinx in docstrings into code with a link, where the site has the name."""

import re

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Replaces ``:class:`~fewstep.Solver``` and the like."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Replace the roles in the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(lambda role: _linked(role, obj), obj.docstring.value)


def _linked(role: re.Match[str], obj: griffe.Object) -> str:
    short, name = role.groups()
    shown = name.rpartition(".")[2] if short else name
    if name.startswith("fewstep."):
        return f'<autoref identifier="{name}" optional><code>{shown}</code></autoref>'
    return f"`{shown}`"
