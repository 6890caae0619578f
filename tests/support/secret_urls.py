"""Addresses with secrets in them, made from a seed: the ways in which people write them, right and wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_PLAIN = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_ODD = "/ @#?%[]:&=;,+'\"<>()$!é"
_KEYS = (
    *("password", "passwd", "pwd", "token", "access_token", "sig", "signature", "X-Amz-Signature", "X-Amz-Credential"),
    *(
        "X-Amz-Security-Token",
        "X-Goog-Signature",
        "X-Goog-Credential",
        "AWSAccessKeyId",
        "sslpassword",
        "api_key",
        "key",
    ),
)
_DATABASES = ("postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql+pyodbc")


@dataclass(frozen=True, kw_only=True)
class SecretUrl:
    """An address, and what must not be seen of it."""

    url: str
    secret: str

    @property
    def hidden(self) -> set[str]:
        """The secret in each form that a text may show."""
        forms = {self.secret, unquote(self.secret), unquote_plus(self.secret)}
        return forms | {quote(self.secret, safe=""), quote_plus(self.secret)}


def secret_url(rng: random.Random, *, encoded: bool | None = None, host: str = "") -> SecretUrl:
    """One address; ``encoded`` says whether what is odd in its secret is percent-encoded, as it should be."""
    kind = rng.choice(("database", "database", "hosts", "web", "token", "key", "query", "query", "odbc", "sqlite"))
    secret = _secret(rng)
    if kind in ("query", "sqlite", "odbc"):  # there these end a value, whatever was meant
        secret = secret.translate(dict.fromkeys(map(ord, "&#;"), "x"))
    written = quote(secret, safe="") if (rng.random() < 0.5 if encoded is None else encoded) else secret
    host, user = host or f"h{rng.randrange(100)}.example.org", f"user{rng.randrange(100)}"
    if kind == "database":
        url = f"{rng.choice(_DATABASES)}://{user}:{written}@{host}:5432/db"
    elif kind == "hosts":
        url = f"postgresql://{user}:{written}@{host}:5432,{host}:5433/db?target_session_attrs=any"
    elif kind == "web":
        url = f"https://{user}:{written}@{host}/mlflow"
    elif kind == "token":
        url = f"https://{written}@{host}/mlflow"
    elif kind == "key":
        url = f"s3://AKIA{user}:{written}@bucket/models"
    elif kind == "odbc":
        inner = f"DRIVER={{ODBC Driver 18}};SERVER={host};UID={user};PWD={secret}"
        url = f"mssql+pyodbc:///?odbc_connect={quote_plus(inner)}"
    else:
        base = f"https://{host}/file" if kind == "query" else "sqlite:///mlflow.db"
        url = f"{base}?a=1&{rng.choice(_KEYS)}={written}&b=2"
    return SecretUrl(url=url, secret=secret)


def _secret(rng: random.Random) -> str:
    """Between 8 and 14 characters, a digit among them, up to three odd ones inside."""
    text = [rng.choice(_PLAIN) for _ in range(rng.randrange(7, 12))] + ["7"]
    for _ in range(rng.randrange(4)):
        text.insert(rng.randrange(1, len(text) - 1), rng.choice(_ODD))
    return "".join(text)
