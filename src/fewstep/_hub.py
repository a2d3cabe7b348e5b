"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of solvers, fits and networks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

from ._card_file import CARD, complete
from ._files import write_text
from ._hub_files import CLIENT, explained, find, require_hub

__all__ = ["Shared"]

Made = TypeVar("Made", bound="Shared")


class Shared:
    """Something that a folder, or a repository of the Hugging Face Hub, holds in one file with a model card.

    ``huggingface_hub.ModelHubMixin`` has the same three methods. It is not their base, as it would have to be
    imported with this package, deletes a ``config.json`` in the folder, and reads one from any repository.
    """

    #: Name of the file.
    _FILE: ClassVar[str]
    #: Names of further files beside it.
    _MORE: ClassVar[tuple[str, ...]] = ()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        card: str | None = None,
        license: str | None = None,
        base_model: str | Sequence[str] | None = None,
        **facts: Any,
    ) -> None:
        """Write the file of this object and a model card, ``README.md``, to a folder.

        Args:
            save_directory: the folder, made if it is missing; other files in it stay as they are.
            card: text of the model card, with or without metadata, in place of ours. Without it, a README.md
                that was written or edited by hand is kept.
            license: license in the metadata of the card, such as ``"apache-2.0"``.
            base_model: id of the network on the Hub, or several.
            **facts: for networks: ``shape``, ``schedule``, ``prediction`` and ``clock`` of their
                :class:`~fewstep.Field`, which :func:`~fewstep.models.load_field` reads.

        Raises:
            ValueError: when the card or its metadata are no such text.
            ImportError: without huggingface_hub, which the extra ``hub`` brings.
        """
        if not isinstance(save_directory, str | os.PathLike) or not str(save_directory):
            raise ValueError(f"{self._caller('save_pretrained')}: name a folder, not {save_directory!r}.")
        folder = Path(save_directory)
        if folder.exists() and not folder.is_dir():
            raise ValueError(
                f"{self._caller('save_pretrained')}: {str(save_directory)!r} is a file; name a folder."
            )
        self._check_facts("save_pretrained", facts)
        self._write_folder(folder, folder.resolve().name, card, license, base_model, facts)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str | None = None,
        license: str | None = None,
        base_model: str | Sequence[str] | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **facts: Any,
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to a repository of the Hub, made if it is missing.

        Args:
            repo_id: ``"owner/name"``, or ``"name"`` for a repository of your own.
            card: as for :meth:`save_pretrained`. The card in the repository is replaced.
            license: as for :meth:`save_pretrained`.
            base_model: as for :meth:`save_pretrained`.
            commit_message: message of the commit.
            private: make a new repository private; by default it is public, or as the organisation wants it.
            token: token of the Hub; by default that of ``hf auth login``.
            revision: branch to commit to, made if it is missing.
            create_pr: open a pull request instead.
            **facts: as for :meth:`save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            ConnectionError: when the Hub cannot be reached, or reports an error.
            PermissionError: when the token does not allow it.
            ValueError: on a name that no repository can have, or contents that the Hub rejects.
            ImportError: without huggingface_hub, which the extra ``hub`` brings.
        """
        caller = self._caller("push_to_hub")
        if not isinstance(repo_id, str):
            raise ValueError(f"{caller}: repo_id must be a name like 'owner/name', not {repo_id!r}.")
        self._check_facts("push_to_hub", facts)
        with TemporaryDirectory() as made:
            # Before a repository is made, so that what cannot be written leaves none behind.
            self._write_folder(Path(made), repo_id, card, license, base_model, facts)
            api = require_hub().HfApi(token=token, **CLIENT)
            with explained(f"{caller}:", repo_id, revision):
                full = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                if full != repo_id:
                    self._write_folder(Path(made), full, card, license, base_model, facts)
                if revision is not None and not revision.startswith("refs/"):
                    api.create_branch(full, branch=revision, exist_ok=True)
                return str(
                    api.upload_folder(
                        repo_id=full,
                        folder_path=made,
                        commit_message=commit_message or f"Upload a {type(self).__name__} with fewstep",
                        revision=revision,
                        create_pr=create_pr,
                    )
                )

    @classmethod
    def from_pretrained(
        cls: type[Made],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Made:
        """Read what :meth:`save_pretrained` wrote, from a folder or a repository of the Hub.

        Only files of fewstep are read, JSON or safetensors; nothing in the folder or the repository is run.

        Args:
            pretrained_model_name_or_path: a folder, or the id of a repository, ``"owner/name"``.
            revision: branch, tag or commit of the repository; by default the newest.
            token: token of the Hub; by default that of ``hf auth login``.
            cache_dir: folder of downloads; by default that of huggingface_hub.
            force_download: download again what is in the cache.
            local_files_only: read from the cache alone.

        Raises:
            FileNotFoundError: when there is no such folder, repository, revision or file.
            ConnectionError: when the Hub cannot be reached, and the cache does not have the file.
            PermissionError: when the Hub does not let this user read it.
            ValueError: when the file is damaged, newer than this version, or holds something else.
            ImportError: for a repository without huggingface_hub, which the extra ``hub`` brings.
        """
        for name in (*cls._MORE, cls._FILE):
            path = find(
                pretrained_model_name_or_path,
                name,
                f"{cls.__name__}.from_pretrained",
                revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        return cls._read(path)

    def _write(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the file."""
        raise NotImplementedError

    @classmethod
    def _read(cls: type[Made], path: Path) -> Made:
        """Read the file."""
        raise NotImplementedError

    def _body(self, name: str, facts: dict[str, Any]) -> str:
        """Return the text of a model card for the repository or folder ``name``."""
        raise NotImplementedError

    def _check_facts(self, method: str, facts: dict[str, Any]) -> None:
        """Raise TypeError on facts that the file has no place for."""
        if facts:
            raise TypeError(
                f"{self._caller(method)}: there is no argument {', '.join(map(repr, facts))}; see "
                f"help({self._caller(method)})."
            )

    def _caller(self, method: str) -> str:
        return f"{type(self).__name__}.{method}"

    def _write_folder(
        self,
        folder: Path,
        name: str,
        card: str | None,
        license: str | None,
        base_model: str | Sequence[str] | None,
        facts: dict[str, Any],
    ) -> None:
        text = complete(folder / CARD, self._body(name, facts), card, license, base_model)
        self._write(folder / self._FILE, facts)
        if text is not None:
            write_text(folder / CARD, text)
