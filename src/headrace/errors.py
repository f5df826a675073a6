"""Every error that Headrace raises on purpose.

    HeadraceError
    ├── BadRequest              400  the caller's input is wrong; `field` names where
    │   ├── PromptTooLong       400  more tokens than the model's context holds
    │   └── InvalidField        422  a field is missing, unknown, or has a wrong type or value
    ├── Unauthorized            401  no key, or an unknown one
    ├── Forbidden               403  a key without the right, or a foreign web page
    ├── NotFound                404
    │   ├── UnknownModel        404  lists the known names
    │   ├── UnknownCollection   404  lists the known names
    │   ├── UnknownItem         404  a document or job that is not there
    │   └── UnknownSession      404  not open (any more), or somebody else's
    ├── TooSlow                 408  the request's body does not arrive
    ├── Busy                    409  another process writes to the same collection (its PID)
    ├── InUse                   409  something that is to be removed and that others name
    ├── StaleVersion            412  changed since it was read; the message has the version now
    ├── TooLarge                413  above a configured size
    ├── Overloaded              429  a queue is full; `retry_after` seconds
    ├── Cancelled               499  the caller went away
    ├── ConfigError             500  the configuration file is wrong (line and option)
    ├── SourceError             502  weights could not be fetched or do not match their checksum
    ├── UpstreamError           502  a remote model answered with an error
    ├── ModelFailed             503  a worker crashed, or its engine failed on this request
    ├── ShuttingDown            503  the server ends, and takes or finishes nothing more
    ├── DeadlineExceeded        504  the request's time is over
    ├── ReadError               422  a file cannot be read; never stops the other files
    └── StorageError            507  disk full, folder read-only, index damaged

Foreign exceptions are translated where they enter, with `from`.
"""

from __future__ import annotations

from collections.abc import Iterable


class HeadraceError(Exception):
    """Base. `status` is the HTTP status, `code` the stable name that programs match on."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class BadRequest(HeadraceError):
    status = 400
    code = "bad_request"


class PromptTooLong(BadRequest):
    code = "context_length_exceeded"


class InvalidField(BadRequest):
    status = 422
    code = "invalid_field"


class Unauthorized(HeadraceError):
    status = 401
    code = "unauthorized"


class Forbidden(HeadraceError):
    status = 403
    code = "forbidden"


class NotFound(HeadraceError):
    status = 404
    code = "not_found"


def _unknown(kind: str, name: str, known: Iterable[str] | None) -> str:
    if known is None:
        return f"there is no {kind} named {name!r} any more"
    names = ", ".join(sorted(known))
    return f"there is no {kind} named {name!r}" + (f"; known: {names}" if names else "")


class UnknownModel(NotFound):
    code = "model_not_found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(_unknown("model", name, known), field="model")


class UnknownCollection(NotFound):
    """`known` is `None` for one that was deleted while it was in use."""

    code = "collection_not_found"

    def __init__(self, name: str, known: Iterable[str] | None) -> None:
        super().__init__(_unknown("collection", name, known), field="collection")


class UnknownItem(NotFound):
    code = "item_not_found"


class UnknownSession(NotFound):
    code = "session_not_found"


class TooSlow(HeadraceError):
    status = 408
    code = "too_slow"


class Busy(HeadraceError):
    status = 409
    code = "busy"
    pid: int | None = None

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class InUse(HeadraceError):
    status = 409
    code = "in_use"


class StaleVersion(HeadraceError):
    status = 412
    code = "stale_version"


class TooLarge(HeadraceError):
    status = 413
    code = "too_large"


class ReadError(HeadraceError):
    status = 422
    code = "unreadable"


class Overloaded(HeadraceError):
    status = 429
    code = "overloaded"
    retry_after: float = 1.0

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Cancelled(HeadraceError):
    status = 499
    code = "cancelled"


class ConfigError(HeadraceError):
    code = "config_error"


class SourceError(HeadraceError):
    status = 502
    code = "source_error"


class UpstreamError(HeadraceError):
    status = 502
    code = "upstream_error"


class ModelFailed(HeadraceError):
    """`unsent`: no worker had been given any of the request, so it may be asked again."""

    status = 503
    code = "model_failed"
    unsent: bool = False


class ShuttingDown(HeadraceError):
    status = 503
    code = "shutting_down"


class DeadlineExceeded(HeadraceError):
    status = 504
    code = "deadline_exceeded"


class StorageError(HeadraceError):
    status = 507
    code = "storage_error"


def by_code(code: str, message: str) -> HeadraceError:
    """The error that a worker reported by name, for raising on this side of the socket."""
    found = _CODES.get(code, ModelFailed)
    error = found.__new__(found)
    HeadraceError.__init__(error, message)
    return error


def _tree(root: type[HeadraceError]) -> Iterable[type[HeadraceError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_CODES = {cls.code: cls for cls in _tree(HeadraceError)}
