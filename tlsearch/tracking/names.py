"""Names of users in what MLflow reads: its filters, its registry, its addresses, the folders of its files."""

from __future__ import annotations

import hashlib
import re

from tlsearch.errors import TrackingError


def quoted(text: str) -> str:
    """A text as a value in an MLflow filter, which knows two kinds of quotes and no way to escape one.

    Raises:
        TrackingError: It has both kinds.
    """
    if "'" not in text:
        return f"'{text}'"
    if '"' in text:
        raise TrackingError(f"MLflow cannot look for a name that has both ' and \": {text}")
    return f'"{text}"'


def model_name(text: str) -> str:
    """The text as MLflow takes it for the name of a logged model."""
    return re.sub(r"""[/:.%"']""", "-", text)


def registered_name(experiment: str) -> str:
    """The name of an experiment's model in the registry: one that filters and ``models:/NAME@ALIAS`` can hold."""
    name = re.sub(r"[/:@#?]|^\.+$", "-", experiment)
    return name.replace('"', "-") if "'" in name else name


def folder_name(experiment: str) -> str:
    """The name of the folder that holds a new experiment's files: short, and the same in an address as on the disk."""
    plain = re.sub(r"[^A-Za-z0-9 ._-]+", "-", experiment).lstrip(".")
    if plain == experiment:
        return plain
    return f"{plain[:60]}-{hashlib.sha256(experiment.encode()).hexdigest()[:12]}"
