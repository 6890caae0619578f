"""What a file is, by its first bytes: people give, and hosts send, many files that are not weights."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from tlsearch.core.codec import parse_json
from tlsearch.core.files import open_regular
from tlsearch.data.fetch.fetcher import WEIGHTS

MAX_BYTES = WEIGHTS.max_bytes
SAFETENSORS, TORCH = "safetensors", "torch"
_HEAD_BYTES = 4096
_MAX_JSON_BYTES = 1_000_000
_MAX_SAFETENSORS_HEADER = 100_000_000  # the library's own limit
_PACKED = (
    (b"\x1f\x8b", "a gzip archive", "gunzip"),
    (b"BZh", "a bzip2 archive", "bunzip2"),
    (b"\xfd7zXZ\x00", "an xz archive", "unxz"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x"),
    (b"Rar!", "a rar archive", "unrar x"),
)
_OTHERS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"GGUF", "a GGUF file of a language model"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)
_NOT_TORCH = "weights are a PyTorch state dict or safetensors: export them so where the model was made"


def kind_of(path: Path) -> str:
    """SAFETENSORS or TORCH, where the file looks like that; empty where it looks like neither."""
    head = _head(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_SAFETENSORS_HEADER:
        return SAFETENSORS
    # torch's own container, or a pickle of protocol 2 to 5, as torch wrote before version 1.6
    return TORCH if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") else ""


def other_kind(path: Path) -> str:
    """What the file is and what to do, where it certainly is not weights; empty where it may be weights."""
    if path.is_dir():
        return _folder(path)
    head = _head(path)
    if not head:
        return "is empty: the download or copy failed; get it again"
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"^size (\d+)", head, re.MULTILINE)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return (
            f"is a Git LFS pointer, not the file{of} that it stands for: `git lfs pull` in its repository fetches that"
        )
    for start, what, command in _PACKED:
        if head.startswith(start):
            return f"is {what}: unpack it ({command}) and give the file inside"
    if head[257:262] == b"ustar":
        return f"is a tar archive{_members_of_tar(path)}: unpack it (tar xf) and give the file inside"
    for start, what in _OTHERS:
        if head.startswith(start):
            return f"is {what}; {_NOT_TORCH}"
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite model; {_NOT_TORCH}"
    if head[:1] == b"\x08" and re.search(rb"^\x08.\x12.{1,40}(pytorch|onnx|tf2onnx|skl2onnx)", head[:64], re.DOTALL):
        return f"is an ONNX model; {_NOT_TORCH}"
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    return _page(head, path)


def begins_with(path: Path) -> str:
    """The first bytes, for messages."""
    start = _head(path)[:24]
    return repr(start.decode()) if _is_text(start) else f"the bytes {start[:8].hex(' ')}"


def page_hint(url: str) -> str:
    """What is wrong with an address that leads to a page about a file; empty where nothing is."""
    parts = urlsplit(url)
    if "/blob/" in parts.path:
        word = "/resolve/" if "huggingface" in (parts.hostname or "") else "/raw/"
        return f"; the address is that of a page about the file: put {word} for /blob/"
    return ""


def _head(path: Path) -> bytes:
    with open_regular(path, MAX_BYTES) as file:
        return file.read(_HEAD_BYTES)


def _folder(path: Path) -> str:
    inside = sorted(one.name for one in path.iterdir() if one.suffix.lower() in (".safetensors", ".pth", ".pt", ".bin"))
    hint = f": {', '.join(inside[:5])}" if inside else ", and this one has none with a suffix of weights"
    return f"is a folder; name the file in it{hint}"


def _members_of_tar(path: Path) -> str:
    try:
        with tarfile.open(path) as archive:
            first = archive.next()
        return f" that begins with {first.name!r}" if first is not None else ""
    except (tarfile.TarError, OSError):
        return ""


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "is cut short or damaged (an archive without its end): get it again, and compare its size"
    tops = {name.partition("/")[2] or name for name in names}
    if "data.pkl" in tops and "constants.pkl" in tops:
        return (
            "is a TorchScript archive, a program with its weights; save the weights alone:"
            " torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if "data.pkl" in tops:
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return f"is a numpy archive (.npz); {_NOT_TORCH}"
    if "config.json" in names and "model.weights.h5" in names:
        return f"is a Keras model; {_NOT_TORCH}"
    if any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in names):
        return "is a program of torch.export (.pt2); give the state dict that it was made from"
    if any(name.endswith("MAR-INF/MANIFEST.json") for name in names):
        return "is a TorchServe archive (.mar): unpack it (unzip) and give the file inside"
    return (
        f"is a zip archive that begins with {names[0]!r}: unpack it (unzip) and give the file inside"
        if names
        else ("is an empty zip archive: get it again")
    )


def _page(head: bytes, path: Path) -> str:
    """HTML, XML and JSON, as hosts answer in place of a file."""
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    lower = text.lower()
    if lower.startswith(("<!doctype html", "<html", "<head", "<body", "<!--")):
        title = re.search(r"<title[^>]*>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
        named = f" ({_short(title[1])!r})" if title else ""
        return (
            f"is a web page{named}, not a weights file: hosts send one in place of a file that needs a login or a"
            " confirmation, or for a page about it; download the file itself"
        )
    if lower.startswith(("<?xml", "<error")):
        said = [match[1] for tag in ("Code", "Message") if (match := re.search(f"<{tag}>(.*?)</{tag}>", text))]
        answer = f": {_short(': '.join(said))}" if said else ""
        return f"is an XML document, not a weights file{answer}; a storage answers so where it refuses a file"
    if text.startswith(("{", "[")):
        return _json(path)
    return ""


def _json(path: Path) -> str:
    if path.stat().st_size > _MAX_JSON_BYTES:
        return "is a JSON document, not a weights file; give the file with the tensors"
    try:
        content = parse_json(path.read_bytes(), path, object)
    except ValueError:
        return ""
    said = (
        content.get("error") or content.get("message") or content.get("detail") if isinstance(content, dict) else None
    )
    answer = f": {_short(str(said))}" if said else ""
    return f"is a JSON document, not a weights file{answer}; give the file with the tensors"


def _short(text: str) -> str:
    return " ".join(text.split())[:120]


def _is_text(start: bytes) -> bool:
    try:
        text = io.TextIOWrapper(io.BytesIO(start), encoding="utf-8").read()
    except UnicodeDecodeError:
        return False
    return bool(text) and all(one.isprintable() or one.isspace() for one in text)
