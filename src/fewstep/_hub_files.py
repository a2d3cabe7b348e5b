"""Files of fewstep in folders and on the Hugging Face Hub, and what went wrong there in one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._extras import require
from ._reach import no_answer
from ._version import __version__

__all__ = ["CLIENT", "CORRECTOR", "FIT", "NETWORK", "SOLVER", "explained", "find", "require_hub", "within"]

SOLVER, FIT, NETWORK = "solver.json", "fit.json", "network.safetensors"
#: Beside a solver: the corrections of its states.
CORRECTOR = "corrector.safetensors"
#: What a file holds, and what loads it.
_HOLDS = {
    SOLVER: ("a solver", "fewstep.Solver.from_pretrained"),
    FIT: ("a fit", "fewstep.Fit.from_pretrained, and take a solver with .solver or .at(nfe=...)"),
    NETWORK: ("a network", "from_pretrained of its class in fewstep.networks"),
}
#: How this library names itself to the Hub.
CLIENT = {"library_name": "fewstep", "library_version": __version__}
#: Seconds to wait for an answer of the Hub.
_PATIENCE = 5.0


def require_hub(part: str = "") -> Any:
    """Import huggingface_hub, which the extra ``hub`` brings, or a part of it."""
    return require(f"huggingface_hub{part}", "hub")


def within(path: str | os.PathLike[str], name: str) -> Path:
    """Return the file ``name`` in a folder, or a path that is none as it is."""
    return Path(path) / name if Path(path).is_dir() else Path(path)


def find(
    source: str | os.PathLike[str], name: str, caller: str, revision: str | None, **options: Any
) -> Path:
    """Return the path of a file of ours in a folder, or of its download from a repository of the Hub.

    No other file is opened.

    Args:
        source: a folder, or the id of a repository.
        name: name of the file.
        caller: the function that looks for it, for messages.
        revision: branch, tag or commit of the repository; ``None`` for the newest.
        **options: ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` of
            ``huggingface_hub.hf_hub_download``.

    Raises:
        FileNotFoundError: when there is no such folder, repository, revision or file.
        ConnectionError: when the Hub cannot be reached, and the file is not in the cache.
        PermissionError: when the Hub does not let this user read it.
        ValueError: when ``source`` is a file.
    """
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            f"{caller}: needs a folder, or the name of a repository like 'owner/name', not {source!r}."
        )
    folder = Path(source)
    if str(source) and folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(_lacks(caller, str(source), name, os.listdir(folder)))
        return folder / name
    if str(source) and folder.exists():
        raise ValueError(
            f"{caller}: {str(source)!r} is a file; pass its folder, or read it with {_reader(caller)}."
        )
    if isinstance(source, os.PathLike) or not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source):
        raise FileNotFoundError(
            f"{caller}: there is no folder {str(source)!r}, nor can it be a repository of the Hub, whose "
            "names are like 'owner/name'."
        )
    return _download(source, name, caller, revision, **options)


def _download(repo: str, name: str, caller: str, revision: str | None, **options: Any) -> Path:
    hub, errors = require_hub(), require_hub(".errors")
    why = _offline(options.pop("local_files_only"))
    with explained(f"{caller}: {repo!r} is no folder here, and", repo, revision):
        if why is not None and options["force_download"]:
            raise ConnectionError(f"{caller}: force_download=True needs the Hub, but {why}.")
        try:
            path = hub.hf_hub_download(
                repo, name, revision=revision, local_files_only=why is not None, **options, **CLIENT
            )
        except errors.LocalEntryNotFoundError as error:
            if isinstance(error.__cause__, errors.HfHubHTTPError):  # the Hub did answer
                raise error.__cause__ from None
            raise ConnectionError(
                f"{caller}: {repo!r} is no folder here, its {name} is not in the cache, and "
                f"{why or 'the Hub gave no usable answer'}; pass a folder that save_pretrained wrote, or "
                "load it once with a connection."
            ) from error
        except errors.EntryNotFoundError as error:
            held = hub.HfApi(token=options["token"], **CLIENT).list_repo_files(repo, revision=revision)
            raise FileNotFoundError(_lacks(caller, repo, name, held)) from error
    return Path(path)


def _offline(local_files_only: bool) -> str | None:
    """Return why the Hub is not to be asked, or ``None``."""
    if local_files_only:
        return "local_files_only=True forbids to ask the Hub"
    constants = require_hub(".constants")
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return no_answer(constants.ENDPOINT, _PATIENCE, "hub")


def _lacks(caller: str, source: str, name: str, held: list[str]) -> str:
    """Describe a place without the file ``name``, by what it holds."""
    for other in (SOLVER, FIT, NETWORK):
        if other in held:
            what, how = _HOLDS[other]
            return f"{caller}: {source!r} holds {what}, {other}, and no {name}; load it with {how}."
    return f"{caller}: {source!r} holds no {name}, which save_pretrained writes and push_to_hub uploads."


def _reader(caller: str) -> str:
    name = caller.partition(".")[0]
    return f"fewstep.{name}.load" if name in ("Solver", "Fit") else "fewstep.networks.load_network"


@contextmanager
def explained(start: str, repo: str, revision: str | None) -> Iterator[None]:
    """Turn errors of huggingface_hub into one sentence that begins with ``start``; the original is the cause.

    Raises:
        FileNotFoundError: on a missing repository or revision.
        PermissionError: on a token that is wrong, or does not allow it.
        ConnectionError: on everything else that the Hub or the way to it refuses.
        ValueError: on a name that no repository can have, or contents that the Hub rejects.
    """
    errors = require_hub(".errors")
    login = "log in with 'hf auth login' or pass a token"
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{start} no repository can have the name {repo!r}; use 'owner/name'.") from error
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{start} the repository {repo!r} is gated; ask for access on its page on the Hub, and {login}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{start} the Hub shows no repository {repo!r}; check the name, and if it is private, {login}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{start} the repository {repo!r} has no revision {revision!r}; name one of its branches, "
            "tags or commits."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        said = " ".join(str(error.server_message or error).split())
        if status in (401, 403):
            raise PermissionError(f"{start} the Hub refuses access to {repo!r} ({said}); {login}.") from error
        kind = ValueError if status == 400 else ConnectionError
        raise kind(f"{start} the Hub answered with the error {status} for {repo!r}: {said}") from error
    except Exception as error:
        # What the client itself raises where there is no connection; it has been requests, httpx and httpx2.
        lost = type(error).__module__.partition(".")[0] in ("requests", "httpx", "httpx2")
        if not lost and not isinstance(error, errors.OfflineModeIsEnabled):
            raise
        raise ConnectionError(
            f"{start} the Hub cannot be reached for {repo!r} ({' '.join(str(error).split())}); try again "
            "with a connection, or use save_pretrained and a folder."
        ) from error
