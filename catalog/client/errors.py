"""Errors of the client: one class for each kind of refusal, chosen by the problem's ``code``.

* CatalogError
  x ConnectionFailed: no response; a write may have taken effect
  x UnexpectedResponse: a response that the service does not send, for example a proxy's page
  x Refused: a problem (RFC 9457)
    - Unauthenticated (401)
    - Forbidden (403)
    - NotFound (404)
    - Conflict (409)
    - ChangesGone (410): start over
    - PreconditionFailed (412): has the current product
    - Invalid (400, 413, 415, 422): has the fields
    - RateLimited (429)
    - Unavailable (503)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from catalog.client.models import Product

MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError, httpx.InvalidURL)
"""Exceptions of parsers that meet no JSON, or JSON of another shape than the service sends."""


class CatalogError(Exception):
    """Base of all errors of the client.

    Attributes:
        was_repeated: whether the request was sent before, so that it may have taken effect.
    """

    was_repeated = False


class ConnectionFailed(CatalogError):
    """There was no complete response, even after the retries that are safe."""


class UnexpectedResponse(CatalogError):
    """A response that the service does not send, for example a proxy's page.

    Attributes:
        status: its status, or 0.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault of one part of a request.

    Attributes:
        place: ``pointer``, ``parameter``, ``header`` or ``line``.
        name: the JSON pointer, the parameter's or header's name, or the line's number.
        message: a sentence for people.
    """

    place: str
    name: str
    message: str


class Refused(CatalogError):
    """The service refused a request.

    Attributes:
        status: the status of the response.
        code: the stable code to branch on; the API's documentation lists them.
        detail: a sentence about this occurrence.
        faults: the single faults of an invalid request.
        request_id: the id of the request in the service's log.
        retry_after: seconds after which to try again, if the service says so.
        problem: the whole problem.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None) -> None:
        self.status = status
        self.code = str(problem.get("code", ""))
        self.detail = str(problem.get("detail", ""))
        self.request_id = str(problem.get("request_id", ""))
        self.faults = _faults_of(problem)
        self.retry_after = retry_after
        self.problem = problem
        faults = "".join(f" {fault.name}: {fault.message}" for fault in self.faults[:3])
        super().__init__(f"{status} {self.code}: {self.detail}{faults}")


class Unauthenticated(Refused):
    """Wrong credentials, or a token or API key that is not, or no longer, valid."""


class Forbidden(Refused):
    """The caller may not do this."""


class NotFound(Refused):
    """There is no such resource."""


class Conflict(Refused):
    """The current state does not allow it; for a taken value ``faults`` says which."""


class ChangesGone(Refused):
    """The service cannot tell the changes since that one: start over with an export."""


class PreconditionFailed(Refused):
    """The product was changed in the meantime."""

    _etag: str | None = None

    @property
    def current(self) -> Product | None:
        """The product as it is now, with its entity tag, if the service says so."""
        try:
            return Product.from_json(self.problem["current"], etag=self._etag)
        except MALFORMED:
            return None


class Invalid(Refused):
    """The request is not valid; ``faults`` names its faulty parts."""


class RateLimited(Refused):
    """Too many requests; ``retry_after`` says when to go on."""


class Unavailable(Refused):
    """The service, or what it depends on, is temporarily unavailable."""


_BY_STATUS: Mapping[int, type[Refused]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: ChangesGone,
    412: PreconditionFailed,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: RateLimited,
    503: Unavailable,
}

# Codes decide where a status has several meanings.
_BY_CODE: Mapping[str, type[Refused]] = {
    "changes-gone": ChangesGone,
    "precondition-failed": PreconditionFailed,
}


def error_of(response: httpx.Response) -> CatalogError:
    """Return the error of a response that was read and is no success."""
    try:
        problem = response.json()
    except MALFORMED:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        start = f"{response.status_code} without a problem: {response.text[:200]!r}"
        return UnexpectedResponse(start, status=response.status_code)
    kind = _BY_CODE.get(problem["code"]) or _BY_STATUS.get(response.status_code, Refused)
    refusal = kind(response.status_code, problem, retry_after(response))
    if isinstance(refusal, PreconditionFailed):
        refusal._etag = response.headers.get("ETag")
    return refusal


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110, section 10.2.3); None without them."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _faults_of(problem: Mapping[str, Any]) -> Sequence[Fault]:
    faults = []
    errors = problem.get("errors")
    for each in errors if isinstance(errors, list) else ():
        if not isinstance(each, Mapping):
            continue
        for place in ("pointer", "parameter", "header", "line"):
            if place in each:
                faults.append(Fault(place, str(each[place]), str(each.get("message", ""))))
                break
    return faults
