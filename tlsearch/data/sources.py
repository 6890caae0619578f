"""The sources by name; a source's own libraries are imported only when it is asked for."""

from __future__ import annotations

from tlsearch.data.listing import Listing
from tlsearch.errors import DataError
from tlsearch.types import DataSpec

SOURCES = ("folder", "digits", "manifest", "torchvision", "huggingface")


def list_source(spec: DataSpec) -> Listing:
    """Lists the images of a source, as they are there: nothing split yet.

    Raises:
        DataError: The source is unknown, not there, or breaks one of its rules.
    """
    if spec.source == "folder":
        from tlsearch.data.folder import list_folder

        return list_folder(spec)
    if spec.source == "digits":
        from tlsearch.data.digits import list_digits

        return list_digits(spec)
    if spec.source == "manifest":
        from tlsearch.data.manifest import list_manifest

        return list_manifest(spec)
    if spec.source == "torchvision":
        from tlsearch.data.torchvision_sets import list_torchvision

        return list_torchvision(spec)
    if spec.source == "huggingface":
        from tlsearch.data.huggingface import list_huggingface

        return list_huggingface(spec)
    raise DataError(f"data.source must be one of {', '.join(SOURCES)}, not {spec.source!r}")
