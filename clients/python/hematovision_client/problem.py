"""The one exception of this package."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class FieldError(TypedDict):
    """What is wrong with one field of a request; `field` is empty for the request as a whole."""

    field: str
    code: str
    message: str


class Problem(Exception):
    """Why something did not come about. Build on `code`, which is stable.

    `status` is the HTTP status, or 0 where no answer came: then `code` is `not_connected`, `not_trusted` (TLS),
    `unreadable_file`, `not_finished` (a wait that ran out), `not_written` (a download) or `not_understood`.
    `detail` and `errors` are for people and may repeat what was sent, so the text of the exception, which ends up
    in logs, holds neither. `retry_after` is in seconds. `document` is the whole problem document: some codes have
    members of their own, such as the other's review of `review_changed`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}" if status else code)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after = retry_after
        self.document = dict(document or {})


def problem_of(status: int, body: bytes, retry_after: float | None) -> Problem:
    """The problem that an answer tells of; also of a proxy's answer, which is no problem document."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("code"), str):
        code = "redirected" if 300 <= status < 400 else "not_understood"
        detail = f"The server answered with status {status} and without a problem document. Is the address right?"
        return Problem(status, code, detail, retry_after=retry_after)
    errors: list[FieldError] = [
        {"field": str(row.get("field", "")), "code": str(row.get("code", "")), "message": str(row.get("message", ""))}
        for row in told.get("errors") or ()
    ]
    detail = str(told.get("detail", ""))
    return Problem(status, told["code"], detail, errors=errors, retry_after=retry_after, document=told)
