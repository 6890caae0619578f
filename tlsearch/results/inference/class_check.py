"""A model is only used on data with its own classes in its own order."""

from __future__ import annotations

from collections.abc import Sequence

from tlsearch.core.errors import DataError
from tlsearch.data import nfc, same_classes

_SHOWN = 40


def check_classes(model: Sequence[str], data: Sequence[str]) -> None:
    """Compares the classes of a model, in the order of its logits, with those of a data set, in any Unicode form.

    Raises:
        DataError: They differ in content or order; says how, and gives both lists.
    """
    if same_classes(model, data):
        return
    model, data = [nfc(name) for name in model], [nfc(name) for name in data]
    missing = [name for name in model if name not in data]
    extra = [name for name in data if name not in model]
    if missing and extra:
        what = f"other names: {_listed(missing)} of the model, {_listed(extra)} of the data"
    elif missing:
        what = f"the data lack {_listed(missing)}"
    elif extra:
        what = f"the model does not know {_listed(extra)}"
    else:
        what = "the same names in another order"
    raise DataError(
        f"a model is used on data with its own classes in its own order; here are {what}\n"
        f"  model: {_listed(model)}\n  data:  {_listed(data)}"
    )


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names[:_SHOWN])
    return f"{text} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else text
