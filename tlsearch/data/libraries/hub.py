"""Data sets of the Hugging Face Hub: their files, fetched into this node's cache, and what a set may name."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from tlsearch.core.codec import read_json
from tlsearch.core.errors import DataError
from tlsearch.core.files import SET_BYTES, refusal
from tlsearch.core.types import CacheSpec, DataSpec
from tlsearch.data.fetch.connection import Limits
from tlsearch.data.fetch.fetcher import SET_FILE, fetch_file
from tlsearch.node_cache.locked_files import cache_directory, keep, writing

logger = logging.getLogger(__name__)

STORE = "huggingface"
# datasets' modules that read images, or tables that hold them. Others run programs of their own, or read no images.
MODULES = ("arrow", "cache", "csv", "imagefolder", "json", "parquet", "webdataset")
_LIST = Limits(max_bytes=200 * 10**6, total_s=600.0)
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CARDS = ("README.md", "dataset_infos.json", ".huggingface.yaml")
_FETCHERS = 8


def kept_copy(spec: DataSpec) -> Path | None:
    """This node's copy of a set, whole; None where it has none."""
    folder = _folder(spec)
    keep(folder)
    return folder if folder.with_name(f"{folder.name}.json").is_file() else None


def fetch_set(spec: DataSpec) -> Path:
    """This node's copy of a set, fetched where it is not there; later changes of the set are not asked for.

    Raises:
        OSError: It cannot be had.
        DataError: The Hub's list names files outside of the set.
    """
    folder = _folder(spec)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = folder.with_name(f"{folder.name}.json")
    with writing(folder):
        keep(folder)
        if done.is_file():
            return folder
        from huggingface_hub import constants, get_token

        headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
        revision = quote(str(spec.options.get("revision") or "main"), safe="")
        listed = folder.with_name(f"{folder.name}.list")
        url = f"{constants.ENDPOINT}/api/datasets/{spec.name}/revision/{revision}?blobs=true"
        fetch_file(url, listed, _LIST, problem=_list_problem, headers=headers)
        content = read_json(listed)
        files = {_inner(str(one["rfilename"]), spec): one for one in content["siblings"]}
        base = f"{constants.ENDPOINT}/datasets/{spec.name}/resolve/{quote(str(content['sha']), safe='')}"

        def fetch(name: str) -> None:
            path, one = folder / name, files[name]
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            large = one.get("lfs") or {}
            size = one.get("size")
            if not path.is_file() or path.stat().st_size != size:
                digest = str(large.get("sha256") or "")
                fetch_file(
                    f"{base}/{quote(name)}", path, SET_FILE, sha256=digest, num_bytes=size or None, headers=headers
                )

        for name in (name for name in _CARDS if name in files):
            fetch(name)
        wanted = _wanted(folder, spec, [name for name in files if name not in _CARDS])
        total = sum(int(files[name].get("size") or 0) for name in wanted)
        logger.info("fetching %d files of %s, %.1f MB", len(wanted), spec.name, total / 1e6)
        with ThreadPoolExecutor(max_workers=_FETCHERS) as pool:
            list(pool.map(fetch, [name for name in wanted if files[name].get("size") != 0]))
        os.replace(listed, done)
    return folder


def check_folder(root: Path) -> Path:
    """Looks at every file of a local set before a library opens them.

    Returns:
        The folder that the set's files may be in: its own, or, of a snapshot in the Hub's cache, that of its blobs.

    Raises:
        DataError: Something is not a regular file, is too large, or is a link to a folder or out of the set.
    """
    home = Path(os.path.realpath(root.parents[1] if root.absolute().parent.name == "snapshots" else root))
    for path in _entries(root):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            real = Path(os.path.realpath(path))
            if real.is_dir() or not real.is_relative_to(home):
                where = "to a folder" if real.is_dir() else f"out of {home}"
                raise DataError(f"{path}: is a link {where}; a Hugging Face set holds its files itself")
            if not real.exists():
                continue
            found = os.stat(path)
        if text := refusal(found, SET_BYTES):
            raise DataError(f"{path}: cannot be read: {text}")
        if path.name in ("state.json", "dataset_dict.json"):
            _check_saved(path)
    return home


def check_files(named: Mapping[Any, Any], home: Path) -> None:
    """Refuses data files that a set's card or its names lead to, outside of the set.

    Raises:
        DataError: One is elsewhere.
    """
    for path in (str(one) for files in named.values() for one in files):
        local = path.rpartition("::")[2].removeprefix("file://")
        if "://" in local or not Path(os.path.realpath(local)).is_relative_to(home):
            raise DataError(f"the set names a data file outside of {home}: {path}")


def _folder(spec: DataSpec) -> Path:
    if not _NAME.fullmatch(str(spec.name)) or ".." in str(spec.name):
        raise DataError(f"data.name must be the ID of a set on the Hub, such as cifar10 or user/set, not {spec.name!r}")
    key = json.dumps([spec.name, *(str(spec.options.get(one)) for one in ("revision", "name", "data_dir"))])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{str(spec.name).replace('/', '--')}"
    return cache_directory(CacheSpec()) / STORE / name


def _list_problem(file: Path) -> str:
    try:
        content = read_json(file)
        names = [one["rfilename"] for one in content["siblings"]]
        return "" if names and content["sha"] else "lists no files"
    except (ValueError, LookupError, TypeError):
        return "is not a list of the files of a data set"


def _inner(name: str, spec: DataSpec) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise DataError(f"the Hugging Face set {spec.name} lists a file outside of itself: {name!r}")
    return str(path)


def _wanted(folder: Path, spec: DataSpec, names: list[str]) -> list[str]:
    """The files of the configuration that is loaded, as far as the card tells them; else all, or those of data_dir."""
    from datasets.utils.metadata import MetadataConfigs
    from fsspec.utils import glob_translate  # type: ignore[import-untyped]
    from huggingface_hub import DatasetCard

    inside = f"{str(spec.options['data_dir']).strip('/')}/" if spec.options.get("data_dir") else ""
    chosen = [name for name in names if name.startswith(inside)]
    card = folder / "README.md"
    if inside or not card.is_file():
        return chosen
    configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
    config = configs.get(spec.options.get("name") or configs.get_default_config_name() or "", {})
    given = config.get("data_files") or ()
    given = [given] if isinstance(given, str | Mapping) else list(given)
    paths = [one.get("path") if isinstance(one, Mapping) else one for one in given]
    patterns = [str(p) for path in paths for p in (path if isinstance(path, list) else [path])]
    rules = [re.compile(glob_translate(f"{config.get('data_dir') or ''}/{one}".lstrip("/"))) for one in patterns]
    # beside images stands what names them
    named = [name for name in chosen if any(rule.match(name) for rule in rules) or "metadata." in name]
    return named if rules and any(rule.match(name) for rule in rules for name in chosen) else chosen


def _entries(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=_unlisted):
        yield from (Path(folder, name) for name in files)
        yield from (path for name in folders if (path := Path(folder, name)).is_symlink())


def _unlisted(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}")


def _check_saved(path: Path) -> None:
    """Names of files in what ``save_to_disk`` has written: each lies beside it."""
    try:
        content = read_json(path)
        names = [one["filename"] for one in content.get("_data_files") or ()] + list(content.get("splits") or ())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is damaged: {error}") from error
    for name in names:
        if not isinstance(name, str) or PurePosixPath(name).name != name or name in ("", ".", ".."):
            raise DataError(f"{path}: names a file outside of its folder: {name!r}")
