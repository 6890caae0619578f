"""Files in a data folder that are not images of the data set: counted by reason, so that none is dropped silently.

All reasons go by names: no file is opened.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass

HIDDEN = "hidden, by a dot before the name"
JUNK = "made by file managers, NAS systems and tools"
STRAY = "images that are in no class folder"
NO_SPLIT = "images in folders that are not a split"
UNREAD = "images of a kind that is not read (convert them to PNG or JPEG)"
BROKEN = "links to something that does not exist"
LOOP = "links back to a folder that they are in"
SPECIAL = "no regular files (pipes, sockets or devices)"
NO_SUFFIX = "without a suffix"
CONTENT = "images by their content, but not by their names (give them the suffix of an image)"

_BY_SUFFIX = {
    UNREAD: (
        ".ai .arw .cr2 .cr3 .cur .czi .dcm .dds .dib .dicom .djvu .dng .emf .eps .exr .fit .fits .hdr .icns .ico .j2c "
        ".j2k .jp2 .jpc .jpf .jpx .jxl .ndpi .nef .nii .orf .pcx .pdf .pef .pfm .ps .psb .psd .raf .raw .rgb .rw2 .sgi "
        ".srw .svg .svgz .svs .tga .wmf .xbm .xcf .xpm"
    ),
    "videos": ".3gp .avi .flv .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv",
    "archives (unpack them)": ".7z .bz2 .gz .rar .tar .tbz .tgz .txz .xz .zip .zst",
    "labels, tables and text": (
        ".cfg .csv .doc .docx .h5 .hdf5 .html .ini .json .jsonl .lst .log .mat .md .names .ndjson .npz .ods "
        ".parquet .pbtxt .pkl .rst .rtf .tfrecord .tsv .txt .xls .xlsx .xml .xmp .yaml .yml"
    ),
    "unfinished downloads and temporary files": ".aria2 .crdownload .download .part .partial .swp .temp .tmp",
}
_REASON_OF = {suffix: reason for reason, suffixes in _BY_SUFFIX.items() for suffix in suffixes.split()}

_JUNK = frozenset(
    "__macosx __pycache__ @eadir #recycle #snapshot @recycle @recently-snapshot $recycle.bin lost+found thumbs.db "
    "ehthumbs.db ehthumbs_vista.db desktop.ini picasa.ini zbthumbnail.info pspbrwse.jbf folder.htt "
    ".ds_store .localized .directory .nomedia .picasa.ini .picasaoriginals .appledouble .appledb .appledesktop "
    ".temporaryitems .fseventsd .spotlight-v100 .trashes .trash .documentrevisions-v100 .volumeicon.icns .apdisk "
    ".com.apple .@__thumb .@upload_cache .snapshot .snapshots .zfs .thumbnails .thumbs .ipynb_checkpoints .git "
    ".gitignore .gitkeep .gitattributes .svn .hg .dvc .dvcignore .cache .keep".split()
) | {"system volume information", "network trash folder", "temporary items", "icon\r"}
_JUNK_STARTS = ("._", "~$", ".nfs", ".fuse_hidden", ".trash-", ".syncthing.", ".~lock.", ".com.apple.")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files left out for one reason.

    Attributes:
        reason: In words, to stand before a number: ``videos: 3``.
        keys: Paths relative to the root of the data, sorted; those of whole folders end in a slash.
    """

    reason: str
    keys: tuple[str, ...]


class LeftOutFiles:
    """Collects what a walk through a folder leaves out; the same file counts once."""

    def __init__(self) -> None:
        self._keys: dict[str, set[str]] = defaultdict(set)

    def add(self, reason: str, key: str) -> None:
        """Notes a file, or a folder by a key with a slash at its end."""
        self._keys[reason].add(key)

    def result(self) -> tuple[LeftOut, ...]:
        """All that was noted, by reason."""
        return tuple(LeftOut(reason=reason, keys=tuple(sorted(self._keys[reason]))) for reason in sorted(self._keys))


def skipped_by_name(name: str) -> str:
    """Why a file or folder of that name does not count at all; empty where it does."""
    lower = name.lower()
    if lower in _JUNK or lower.startswith(_JUNK_STARTS):
        return JUNK
    return HIDDEN if name.startswith(".") else ""


def reason_by_suffix(name: str) -> str:
    """Why a file whose name is not that of an image is left out."""
    suffix = os.path.splitext(name)[1].lower()
    if not suffix or " " in suffix:
        return NO_SUFFIX
    return _REASON_OF.get(suffix, f"of the suffix {suffix}")


def may_be_image(left: LeftOut) -> bool:
    """Whether the content may yet show files to be images: names alone did not say what they are."""
    return left.reason not in (HIDDEN, JUNK, STRAY, NO_SPLIT, BROKEN, LOOP, SPECIAL, CONTENT)
