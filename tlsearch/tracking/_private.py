"""The private names of MLflow that this package uses, each with its reason; checked with MLflow 3.17.

No other file uses any. ``tests/unit/test_private_names.py`` fails where one is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine

NAMES = ("mlflow.store.db.utils:_initialize_tables",)


def make_tables(engine: Engine) -> None:
    """Makes the tables of a store; MLflow does so itself only where it opens the store."""
    from mlflow.store.db.utils import _initialize_tables

    _initialize_tables(engine)
