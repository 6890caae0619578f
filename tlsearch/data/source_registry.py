"""The sources by name; a source's own libraries are imported only when it is asked for."""

from __future__ import annotations

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec
from tlsearch.data.sources.listing import Listing

SOURCES = ("folder", "digits", "manifest", "torchvision", "huggingface")


def list_source(spec: DataSpec) -> Listing:
    """Lists the images of a source, as they are there: nothing split yet.

    Raises:
        DataError: The source is unknown, not there, or breaks one of its rules.
    """
    if spec.source == "folder":
        from tlsearch.data.sources.image_folder import list_folder

        return list_folder(spec)
    if spec.source == "digits":
        from tlsearch.data.sources.digits import list_digits

        return list_digits(spec)
    if spec.source == "manifest":
        from tlsearch.data.sources.manifest import list_manifest

        return list_manifest(spec)
    if spec.source == "torchvision":
        from tlsearch.data.libraries.torchvision_sets import list_torchvision

        return list_torchvision(spec)
    if spec.source == "huggingface":
        from tlsearch.data.libraries.huggingface import list_huggingface

        return list_huggingface(spec)
    raise DataError(f"data.source must be one of {', '.join(SOURCES)}, not {spec.source!r}")
