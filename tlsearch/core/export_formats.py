"""The formats of ``tlsearch export``. A new one is a row here and its module.

A module has two functions: ``write(classifier, path)`` and ``open_model(path)``, which gives a function of normalised
pixels (N, 3, S, S), one input for each distinct preprocessing, to logits (N, C) and scores (N, C).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """One format.

    Attributes:
        module: Where it is implemented.
        note: What it is, for the help text; empty where the name says it.
        suffix: Of the file; empty for a folder.
    """

    name: str
    module: str
    note: str = ""
    suffix: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name

    @property
    def default_output(self) -> str:
        """The name of the output where none is given."""
        return f"model{self.suffix or f'_{self.name}'}"


EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    one.name: one
    for one in (
        ExportFormat(name="onnx", module="tlsearch.results.export.onnx", suffix=".onnx"),
        ExportFormat(name="torch", module="tlsearch.results.export.torch_export", note="torch.export", suffix=".pt2"),
        ExportFormat(name="script", module="tlsearch.results.export.script", note="plain PyTorch"),
    )
}
