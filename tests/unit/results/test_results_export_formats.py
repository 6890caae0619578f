"""Every row of the table of export formats has its module, and takes its own options alone."""

from __future__ import annotations

from importlib import import_module

import pytest

from tlsearch.core.errors import UsageError
from tlsearch.results.export.export_formats import EXPORT_FORMATS, export_format, formats_of_any_model, formats_with


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_format_has_its_two_functions(name: str) -> None:
    module = import_module(EXPORT_FORMATS[name].module)
    assert callable(module.write) and callable(module.open_model)


def test_where_exports_go_by_default() -> None:
    outputs = [one.default_output for one in EXPORT_FORMATS.values()]
    assert outputs == ["model.onnx", "model.pt2", "model_openvino", "model_hf", "model_script"]


@pytest.mark.parametrize("option", ["int8", "push"])
def test_an_option_is_refused_by_every_format_that_does_not_take_it(option: str) -> None:
    assert formats_with(option)
    for name in EXPORT_FORMATS:
        if name in formats_with(option):
            assert export_format(name, [option]).name == name
            continue
        with pytest.raises(UsageError, match=f"--{option} belongs to the format {formats_with(option)[0]}, not to"):
            export_format(name, [option])


def test_a_format_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="a format is onnx, torch, openvino, hf or script, not 'tflite'"):
        export_format("tflite")


def test_messages_name_the_formats_of_any_model() -> None:
    assert formats_of_any_model() == "onnx, torch or openvino"
