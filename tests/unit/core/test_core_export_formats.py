"""Every row of the table of export formats has its module."""

from __future__ import annotations

from importlib import import_module

import pytest

from tlsearch.core.export_formats import EXPORT_FORMATS


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_format_has_its_two_functions(name: str) -> None:
    module = import_module(EXPORT_FORMATS[name].module)
    assert callable(module.write) and callable(module.open_model)


def test_where_exports_go_by_default() -> None:
    assert [one.default_output for one in EXPORT_FORMATS.values()] == ["model.onnx", "model.pt2", "model_script"]
