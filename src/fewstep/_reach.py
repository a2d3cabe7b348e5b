"""Reachability of a web address, found out without the client's patience."""

from __future__ import annotations

from threading import Thread

from ._extras import require

__all__ = ["no_answer"]


def no_answer(endpoint: str, patience: float, extra: str) -> str | None:
    """Return why an address does not answer within ``patience`` seconds, or ``None`` if it does.

    The client of huggingface_hub alone would try again, and one address after another, for half a minute.

    Args:
        endpoint: the address.
        patience: seconds.
        extra: the extra of fewstep that needs huggingface_hub here.
    """
    session = require("huggingface_hub.utils", extra).get_session()
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            session.head(endpoint, timeout=patience)
            outcome.append(None)
        except Exception as error:  # the client has been requests, httpx and httpx2
            outcome.append(f"{endpoint} cannot be reached: {error}")

    # The client's timeout applies to each address and excludes name resolution.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    return outcome[0] if outcome else f"{endpoint} gave no answer in {patience:g} seconds"
