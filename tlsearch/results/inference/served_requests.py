"""Requests to the served model: what they may hold, and MLflow's scoring server held to it.

MLflow's server parses a request before the model sees it, and that is where a hostile one does harm: deep JSON ends in
a 500, a list of texts becomes an array in which each takes as much as the longest, Parquet unpacks to any size.
"""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import wraps
from typing import Any

from mlflow.exceptions import MlflowException

MAX_IMAGES = 256  # of a request
MAX_BYTES = 32_000_000  # of a request, base64 and all
MAX_PIXELS = 200_000_000  # of a request's images together
MAX_IMAGE_PIXELS = 36_000_000  # of one image: three times a usual photo; each takes 8 to 12 bytes
_MAX_MARKS = 16 * MAX_IMAGES + 1000  # commas and brackets: values that a parser makes objects of
_MAX_HEADER = 80  # bytes of a column's name; the base64 of an image has more
_MAX_MESSAGE = 2000
_FORMATS = ("inputs", "instances", "dataframe_split", "dataframe_records")
_SCORING_SERVER = "mlflow.pyfunc.scoring_server"

# One request at a time, since it may take all the memory there is for one and uses every processor by itself; and
# always in this thread, since OpenMP keeps a team of threads for each thread that has ever computed.
_WORKER = ThreadPoolExecutor(1, thread_name_prefix="served")

logger = logging.getLogger(__name__)


def guard_server(name: str) -> None:
    """Holds the scoring server of this process, if it is one, to the limits.

    Args:
        name: Of the class of models that are guarded; a model's code is loaded once more with each model.
    """
    server: Any = sys.modules.get(_SCORING_SERVER)
    answer = getattr(server, "invocations", None)
    if answer is None or hasattr(answer, "__wrapped__"):
        return

    def work(data: Any, content_type: str | None, model: Any, input_schema: Any) -> Any:
        try:
            return answer(checked_request(data, content_type), content_type, model, input_schema)
        except MemoryError:
            raise _refusal("a request must fit this server's memory: send fewer images at a time") from None
        except MlflowException as error:
            raise _brief(error) from None

    @wraps(answer)
    def guarded(data: Any, content_type: str | None, model: Any, input_schema: Any) -> Any:
        if type(model.unwrap_python_model()).__name__ != name:
            return answer(data, content_type, model, input_schema)
        return _WORKER.submit(copy_context().run, work, data, content_type, model, input_schema).result()

    server.invocations = guarded


def checked_request(data: str | bytes, content_type: str | None) -> Any:
    """A request's body as MLflow's server takes it, made of base64 texts alone.

    Raises:
        MlflowException: It is too large, too deep, or no list of texts; the server answers 400.
    """
    body = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "text/csv"):
        raise _refusal("a request is application/json or text/csv")
    if len(body) > MAX_BYTES:
        raise _refusal(f"a request has at most {MAX_BYTES:,} bytes, not {len(body):,}: send fewer images at a time")
    marks = (b",", b"[", b"{") if kind == "application/json" else (b",", b"\n", b"\r")
    if sum(body.count(mark) for mark in marks) > _MAX_MARKS:
        raise _refusal(f"a request holds at most {MAX_IMAGES} images: send fewer at a time")
    if kind == "text/csv":
        if len(body.lstrip().partition(b"\n")[0]) > _MAX_HEADER:  # an image would be lost
            raise _refusal("the first line of text/csv is the name of the column, and here it is an image")
        return body
    try:
        content = json.loads(body)
    except RecursionError:
        raise _refusal("a request must be JSON of a list of base64 texts, not nested this deep") from None
    except ValueError as error:
        raise _refusal(f"a request must be JSON in UTF-8: {str(error)[:200]}") from None
    keys = [key for key in _FORMATS if isinstance(content, dict) and key in content]
    if len(keys) != 1:
        raise _refusal(f"a request is a JSON object with one of the keys {', '.join(_FORMATS)}")
    images = content[keys[0]]
    if keys[0] == "dataframe_split":
        images = images.get("data") if isinstance(images, dict) else None
    if not isinstance(images, list):
        raise _refusal(f"{keys[0]} must hold a list of base64 texts")
    if not images:
        raise _refusal(f"{keys[0]} must hold at least one image")
    return {"dataframe_split": {"data": [[_text(one, position)] for position, one in enumerate(images)]}}


def _text(item: Any, position: int) -> str:
    if isinstance(item, dict):
        item = list(item.values())
    if isinstance(item, list) and len(item) == 1:
        (item,) = item
    if not isinstance(item, str):
        raise _refusal(f"image {position}: an input is a base64 string, not {type(item).__name__}")
    return item


def _refusal(text: str) -> MlflowException:
    error: MlflowException = MlflowException.invalid_parameter_value(text)
    return error


def _brief(error: MlflowException) -> MlflowException:
    """The error without the request's own data and without this program's traceback, which goes to the log."""
    if trace := error.json_kwargs.pop("stack_trace", None):
        logger.error("%s\n%s", error.message[:_MAX_MESSAGE], trace)
    error.message = (error.message.partition("\nError: ")[2] or error.message)[:_MAX_MESSAGE]
    return error
