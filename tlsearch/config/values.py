"""The rules of single values, as annotations that pydantic applies to the dataclasses of this room."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from tlsearch.config.document.wording import show
from tlsearch.core.types import MAX_CHANNELS

STRICT = ConfigDict(extra="forbid")  # of each section
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_MAX_PATTERN = 1000
MOST = 10**6  # of anything that is counted
_LONGEST_S = 10 * 365 * 86_400
_DURATION_RULE = "a duration is written like 2h, 30m, 90s or 1h30m, or as seconds, and is above 0"


def broken(message: str) -> PydanticCustomError:
    """An error whose message goes to the user as it is."""
    return PydanticCustomError("rule", "{text}", {"text": message})


def parse_duration(value: str | int | float) -> float:
    """Seconds of ``2h``, ``30m``, ``90s``, ``1h30m`` or a number of seconds.

    Raises:
        ValueError: Not such a duration, not above 0, or not finite.
    """
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.replace(" ", ""))) and any(match.groups()):
        hours, minutes, rest = (float(group or 0) for group in match.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{_DURATION_RULE}, not {show(value)}")
    if seconds > _LONGEST_S:
        raise ValueError(f"a duration is at most 10 years (87,600h), not {show(value)}")
    return seconds


def _duration(value: Any) -> Any:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise broken(str(error)) from None


def _auto(value: Any) -> Any:
    if value == "auto" or value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise broken(f"must be auto or a number, not {show(value)}")
    return value


def _scalar(value: Any) -> Any:
    if isinstance(value, list | dict):
        raise broken(f"must be a single value, not {show(value)}")
    return value


def _pattern(value: Any) -> Any:
    if isinstance(value, str):
        try:
            if len(value) > _MAX_PATTERN:
                raise broken(f"has at most {_MAX_PATTERN:,} characters, not {len(value):,}")
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise broken(f"must be a regular expression; {show(value)} is none: {error}") from None
    return value


def _filled(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise broken("must not be empty")
    return value


Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), BeforeValidator(_filled, json_schema_input_type=Annotated[str, Field(pattern=r"\S")])]
Pattern = Annotated[str, Strict(), BeforeValidator(_pattern)]
Count = Annotated[int, Strict(), Field(ge=1, le=MOST)]
CountFromZero = Annotated[int, Strict(), Field(ge=0, le=MOST)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
Duration = Annotated[
    float | None, BeforeValidator(_duration, json_schema_input_type=str | Annotated[float, Field(gt=0)] | None)
]
# Beside each rule what a file may say, for its JSON schema.
_Auto = Literal["auto"]
_Amount = Annotated[Number, Field(ge=0, le=MOST)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
_Pixels = Annotated[Whole, Field(ge=1, le=4096)]
_Channels = Annotated[Whole, Field(ge=1, le=MAX_CHANNELS)]
_Bits = Literal[8, 16]
AutoCount = Annotated[Count | None, BeforeValidator(_auto, json_schema_input_type=Count | _Auto | None)]
AutoAmount = Annotated[_Amount | None, BeforeValidator(_auto, json_schema_input_type=_Amount | _Auto | None)]
AutoShare = Annotated[Fraction | None, BeforeValidator(_auto, json_schema_input_type=Fraction | _Auto | None)]
AutoPixels = Annotated[_Pixels | None, BeforeValidator(_auto, json_schema_input_type=_Pixels | _Auto | None)]
AutoChannels = Annotated[_Channels | None, BeforeValidator(_auto, json_schema_input_type=_Channels | _Auto | None)]
AutoBits = Annotated[_Bits | None, BeforeValidator(_auto, json_schema_input_type=_Bits | _Auto | None)]
AnyScalar = Annotated[Any, BeforeValidator(_scalar, json_schema_input_type=str | int | float | bool | None)]
