"""The hosts that get this user's credentials: those that the user has named, and no other.

A search's folder, a space file of somebody else's, or a record in a store may name any host. Only a host that the
environment names, that a command of this user's names, or that an own search was started on is sent a user and a
password. An origin is a scheme, a host and a port.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from tlsearch.core.secrets import mask

logger = logging.getLogger(__name__)

TRUSTED_VARIABLE = "TLSEARCH_TRUSTED_STORES"  # addresses, with blanks or commas between
_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", TRUSTED_VARIABLE)
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}
_REMOTE = re.compile(r"(https?|postgres(?:ql)?|mysql|mariadb|mssql)(?:\+\w+)?:", re.IGNORECASE)
# Of the fields of MLflow's credentials, those that are not secret.
_HARMLESS = ("ignore_tls_verification", "server_cert_path")

_trusted: set[str] = set()
_told: set[str] = set()


def origin(uri: str) -> str:
    """Scheme, host and port of a server's address; empty for a file, and for what names no host of its own."""
    match = _REMOTE.match(uri)
    if match is None:
        return ""
    scheme = re.sub("^postgres$", "postgresql", match[1].lower())
    try:
        parts = urlsplit(uri)
        hosts = parts.netloc.rpartition("@")[2].lower()
        query = parts.query if scheme not in ("http", "https") else ""  # where a driver may find another host
    except ValueError:
        return f"{scheme}://?"
    if "," not in hosts and not re.search(r":\d+$", hosts):
        hosts = f"{hosts.rstrip(':')}:{_PORTS[scheme]}"
    return f"{scheme}://{hosts}" + f"?{query}" * bool(query)


def trust(*uris: str) -> None:
    """The user has named these addresses: their hosts get this user's credentials from now on."""
    _trusted.update(filter(None, map(origin, uris)))


def is_trusted(uri: str) -> bool:
    """Whether this user's credentials may be sent to an address; so it is where it names no server."""
    wanted = origin(uri)
    named = (one for name in _VARIABLES for one in re.split(r"[\s,]+", os.environ.get(name, "")))
    return not wanted or wanted in _trusted or wanted in map(origin, named)


def without_credentials(url: str) -> str:
    """The address of a database as it is opened without what the user's environment and files say of passwords."""
    if is_trusted(url):
        return url
    bare, _, _ = url.partition("?")  # options may name files to read a password from
    _tell(url)
    if not re.match(r"postgres(ql)?\+psycopg", url):
        return bare
    # libpq takes PGPASSWORD and ~/.pgpass where it is given neither; a password in the address is the file's own.
    password = "" if re.match(r"[^/]+//[^/@]*:[^/@]+@", bare) else "password=none&"
    return f"{bare}?{password}passfile={os.devnull}"


def guard(credentials: ModuleType) -> None:
    """Has MLflow send this user's credentials to trusted hosts alone, also where a record of a store names another.

    Args:
        credentials: ``mlflow.utils.credentials`` (checked with 3.17), whose ``get_default_host_creds`` all of its
            clients ask: it makes a ``MlflowHostCreds`` from the environment and ~/.mlflow/credentials.
    """
    os.environ.setdefault("MLFLOW_ALLOW_HTTP_REDIRECTS", "false")  # to wherever a server says
    make = credentials.MlflowHostCreds
    if getattr(make, "guarded", False):
        return

    def for_host(host: str, **fields: Any) -> Any:
        if is_trusted(host) or origin(host) == origin(_chosen()):
            return make(host=host, **fields)
        os.environ["NETRC"] = os.devnull  # requests would look for a user there
        if any(value for name, value in fields.items() if name not in _HARMLESS):
            _tell(host)
        return make(host=host, **{name: value for name, value in fields.items() if name in _HARMLESS})

    for_host.guarded = True  # type: ignore[attr-defined]
    credentials.MlflowHostCreds = for_host  # type: ignore[attr-defined]


def _chosen() -> str:
    """The store that this process has chosen for MLflow as a whole, where it uses MLflow itself."""
    tracking = sys.modules.get("mlflow.tracking")
    return str(tracking.get_tracking_uri()) if tracking is not None and tracking.is_tracking_uri_set() else ""


def _tell(uri: str) -> None:
    if origin(uri) not in _told:
        _told.add(origin(uri))
        logger.warning(
            "this user's credentials are not sent to %s, which only the search's own files name; "
            "if it is yours, name it in %s",
            mask(origin(uri)),
            TRUSTED_VARIABLE if not uri.startswith("http") else "MLFLOW_TRACKING_URI",
        )
