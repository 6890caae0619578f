"""tlsearch: search for the best way to fine-tune a pretrained image classifier."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m tlsearch` would import everything from the current folder first, a `statistics.py` there too. Where
    # the package itself is in that folder, and nowhere else, it is looked in last.
    _module = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)].removeprefix("-m")
    if _module.partition(".")[0] == __name__:
        _folder = sys.path.pop(0)
        if __file__.startswith(_folder) and _folder not in sys.path:
            sys.path.append(_folder)

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlsearch.api.functions import init_space, open_search, plan, resume, run
    from tlsearch.api.search import Search, Trials
    from tlsearch.api.spaces import LoadedSpace, load_space
    from tlsearch.core.errors import SpaceError, TlsearchError
    from tlsearch.results.inference.predictor import load_model, predict

from tlsearch.core import __version__
from tlsearch.core.imports import lazy_names

__all__ = [
    "LoadedSpace",
    "Search",
    "SpaceError",
    "TlsearchError",
    "Trials",
    "__version__",
    "init_space",
    "load_model",
    "load_space",
    "open_search",
    "plan",
    "predict",
    "resume",
    "run",
]


def __dir__() -> list[str]:
    return sorted(__all__)


__getattr__ = lazy_names(__name__, __file__)  # every room imports this package, and some of these bring torch
