"""The file of a model card: metadata, text, and a mark by which an edited card is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ._extras import require
from ._hashing import fingerprint
from ._hub_files import require_hub
from ._reading import read_bytes, reading

__all__ = ["CARD", "complete"]

CARD = "README.md"
#: Most bytes of one.
_LONGEST = 1 << 24


def complete(
    path: Path, body: str, card: str | None, license: str | None, base_model: str | Sequence[str] | None
) -> str | None:
    """Return a card with its metadata, or ``None`` if the one that is there stays as it is.

    Args:
        path: the card there now; if it was written or edited by hand, it is used in place of ``body``, and
            stays as it is if there are no metadata for it.
        body: the text that was made for it.
        card: the user's own text, in place of both.
        license: license in the metadata.
        base_model: ids of networks in the metadata.

    Raises:
        ValueError: when a card is no text, or its metadata are no YAML.
    """
    for label, value in (("card", card), ("license", license)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{label}: must be text, not {type(value).__name__}.")
    networks = base_model if isinstance(base_model, list | tuple) else [base_model] * (base_model is not None)
    if not all(isinstance(one, str) for one in networks):
        raise ValueError(f"base_model: must be ids of networks on the Hub, not {base_model!r}.")
    own = _edited(path) if card is None else card
    if own is not None and card is None and license is None and not networks:
        return None
    made = _parsed(body if own is None else own, str(path) if card is None else "card")
    made.data.library_name = made.data.library_name or "fewstep"
    tags = made.data.tags or []
    made.data.tags = [*tags, *(tag for tag in ("fewstep", "ode-solver") if tag not in tags)]
    if license is not None:
        made.data.license = license
    if networks:
        made.data.base_model = list(networks) if len(networks) > 1 else networks[0]
    text = str(made)
    return text if own is not None else text + _mark(text)


def _parsed(text: str, where: str):  # type: ignore[no-untyped-def]  # of huggingface_hub.ModelCard
    if not text.lstrip().startswith("---"):
        text = f"---\n\n---\n{text}"  # without metadata it would log a warning
    try:
        return require_hub().ModelCard(text)
    except (ValueError, TypeError, require("yaml", "hub").YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{where}: the metadata of this model card cannot be read: {reason}.") from error


def _edited(path: Path) -> str | None:
    """Return the card at ``path`` if a person wrote or edited it."""
    if not path.exists():
        return None
    with reading(path, "model card", "an editor, or pass card=..., or move it away"):
        text = read_bytes(path, _LONGEST).decode()
    kept, found, _ = text.rpartition("\n<!-- fewstep ")
    return None if found and text == kept + _mark(kept) else text


def _mark(text: str) -> str:
    """Return a last line that holds a hash of the text before it."""
    return f"\n<!-- fewstep {fingerprint([text])} -->\n"
