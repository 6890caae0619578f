"""The formats of ``tlsearch export``. A new one is a row here and its module.

A module has two functions: ``write(classifier, path)`` and ``open_model(path)``, which gives a function of normalised
pixels (N, 3, S, S), one input for each distinct preprocessing, to logits (N, C) and scores (N, C).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tlsearch.core.errors import UsageError
from tlsearch.core.text import one_of


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """One format.

    Attributes:
        module: Where it is implemented.
        note: What it is, for the help text; empty where the name says it.
        suffix: Of the file; empty for a folder.
        any_model: Whether it holds every model; else one network, of a backbone that it knows.
        options: Those of ``tlsearch export`` that it takes beside the general ones, without their dashes.
    """

    name: str
    module: str
    note: str = ""
    suffix: str = ""
    any_model: bool = True
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name

    @property
    def default_output(self) -> str:
        """The name of the output where none is given."""
        return f"model{self.suffix or f'_{self.name}'}"


EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    one.name: one
    for one in (
        ExportFormat(name="onnx", module="tlsearch.results.export.onnx", suffix=".onnx", options=("int8",)),
        ExportFormat(name="torch", module="tlsearch.results.export.torch_export", note="torch.export", suffix=".pt2"),
        ExportFormat(name="openvino", module="tlsearch.results.export.openvino_ir", note="OpenVINO"),
        ExportFormat(
            name="hf",
            module="tlsearch.results.export.hf_folder",
            note="a folder for transformers and timm",
            any_model=False,
            options=("push",),
        ),
        ExportFormat(name="script", module="tlsearch.results.export.script", note="plain PyTorch", any_model=False),
    )
}


def export_format(name: str, options: Collection[str] = ()) -> ExportFormat:
    """The format of a name, which takes all of these options.

    Raises:
        UsageError: It does not exist, or does not take one of them; the message names the formats that do.
    """
    if name not in EXPORT_FORMATS:
        raise UsageError(f"a format is {one_of(EXPORT_FORMATS)}, not {name!r}")
    found = EXPORT_FORMATS[name]
    for option in options:
        if option not in found.options:
            raise UsageError(f"--{option} belongs to the format {one_of(formats_with(option))}, not to {name}")
    return found


def formats_with(option: str) -> tuple[str, ...]:
    """The names of the formats that take an option."""
    return tuple(one.name for one in EXPORT_FORMATS.values() if option in one.options)


def formats_of_any_model() -> str:
    """For messages: the names of the formats that hold every model."""
    return one_of([one.name for one in EXPORT_FORMATS.values() if one.any_model])
