"""An exported folder uploaded to the Hugging Face Hub, by huggingface_hub with its own login."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlsearch.core.errors import TlsearchError, UsageError, UserError
from tlsearch.results.export.hf_folder import CARD


class HubError(TlsearchError, RuntimeError):
    """The Hub refuses, or cannot be reached."""


def _import_hub() -> Any:
    try:
        import huggingface_hub.utils
    except ImportError as error:
        raise UserError("--push needs the package huggingface_hub: pip install 'tlsearch[timm]' brings it") from error
    return huggingface_hub


def check_push(repo: str) -> None:
    """That there is a name to upload to and a login to do it with; sends nothing.

    Raises:
        UserError: Not a name of the Hub, no login, or huggingface_hub is not installed.
    """
    hub = _import_hub()
    try:
        hub.utils.validate_repo_id(repo)
    except hub.utils.HFValidationError as error:
        raise UsageError(f"--push takes a repository of the Hub, as name or owner/name, not {repo!r}") from error
    if hub.get_token() is None:
        raise UserError("--push needs a login to the Hugging Face Hub: `hf auth login`, or the variable HF_TOKEN")


def push(folder: Path, repo: str) -> str:
    """Uploads the files of a folder in one commit; a repository that does not exist is created as a private one.

    A README.md that the repository has already is left as it is.

    Returns:
        The address of the repository.

    Raises:
        HubError: The Hub refuses, or cannot be reached; the folder stays.
    """
    api = _import_hub().HfApi(library_name="tlsearch")
    try:
        created = api.create_repo(repo, private=True, exist_ok=True)
        kept = [CARD] if api.file_exists(created.repo_id, CARD) else None
        api.upload_folder(
            repo_id=created.repo_id,
            folder_path=str(folder),
            ignore_patterns=kept,
            commit_message="Upload a model exported by tlsearch",
        )
    except Exception as error:  # of whatever library it sends with
        raise HubError(f"{folder} is written, but it cannot be uploaded to {repo}: {error}") from error
    return str(created)
