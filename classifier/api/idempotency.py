"""Idempotency-Key: a POST that is sent again with its key is answered as the first time, and its effect happens once.

The key is claimed in a transaction of its own, so that a second request meets it. The answer is kept in the transaction
of the effect, so that a crash leaves both or neither. A claim whose request is slower than CLAIMED is lost: whoever
comes next has the key, and the slow one finds that out before it commits.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.db import IntegrityError, transaction
from django.http import Http404, HttpResponse, QueryDict
from django.urls import URLPattern
from django.utils import timezone
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import ApiToken
from classifier.api.errors import problem
from classifier.errors import Conflict, HematoVisionError, InvalidInput
from classifier.models import IdempotentRequest
from classifier.storage import unstored_on_failure

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
# Longer than any handler takes; after a crash, how long a client waits before it can try again.
CLAIMED = timedelta(seconds=60)
RETRY_AFTER = 2
VISIBLE_ASCII = re.compile(r"[\x21-\x7e]{1,255}")
# Fields that are no part of what tells two requests apart: nothing of a password is kept, not even a digest.
SECRET_FIELDS = frozenset({"password"})
SECRET_ANSWERS = frozenset({"secret", "token"})
KEPT_HEADERS = ("Location", "ETag")
# What a handler raises to say no; its own transactions are over by then, and what they committed stays.
REFUSALS = (HematoVisionError, APIException, Http404, PermissionDenied)

Handler = Callable[..., HttpResponse]


def honour_keys(patterns: Iterable[URLPattern]) -> None:
    """Let every POST of these addresses honour the header, whoever wrote the view."""
    for pattern in patterns:
        view = getattr(pattern.callback, "cls", None)
        post = getattr(view, "post", None)
        if view is not None and post is not None and not hasattr(post, "answers_once"):
            view.post = answered_once(post)


def answered_once(handler: Handler) -> Handler:
    """The handler of a view's POST, run once for each key; authentication and permissions come before it."""

    @wraps(handler)
    def answer(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        key = request.headers.get(HEADER)
        if key is None:
            return handler(view, request, *args, **kwargs)
        if not VISIBLE_ASCII.fullmatch(key):
            message = "An Idempotency-Key has 1 to 255 visible ASCII characters, without spaces; a UUID serves well."
            raise InvalidInput("malformed_idempotency_key", message)
        owner, fingerprint = owner_of(request), fingerprint_of(request)
        claimed, is_first = claim(owner, key, fingerprint)
        if not is_first:
            return answer_again(claimed, fingerprint)
        prepare = getattr(view, "prepare", nothing_to_prepare)
        return answer_first(claimed, lambda: prepare(request), lambda: handler(view, request, *args, **kwargs))

    answer.answers_once = True  # type: ignore[attr-defined]
    return answer


def nothing_to_prepare(request: Request) -> None:
    """Most requests are quick from the first line on."""


def owner_of(request: Request) -> str:
    """A digest of the laboratory and the token, or the user where a session asks: keys of others are not one's own."""
    who = f"token {request.auth.digest}" if isinstance(request.auth, ApiToken) else f"user {request.user.pk}"
    who = f"laboratory {getattr(request.user, 'laboratory_id', None)} {who}"
    return hashlib.sha256(who.encode()).hexdigest()


def fingerprint_of(request: Request) -> str:
    """Of method, address, fields and the files' content. How a form is cut into parts does not count."""
    described = {
        "method": request.method,
        "address": request.get_full_path(),
        "fields": fields_of(request),
        "files": {
            name: [[file.name, digest_of(file)] for file in request.FILES.getlist(name)] for name in request.FILES
        },
    }
    text = json.dumps(described, sort_keys=True, default=str)
    return salted_hmac("hematovision.idempotency", text, algorithm="sha256").hexdigest()


def fields_of(request: Request) -> Any:
    fields = dict(request.data.lists()) if isinstance(request.data, QueryDict) else request.data
    if not isinstance(fields, dict):
        return fields
    apart = SECRET_FIELDS | set(request.FILES)
    return {name: value for name, value in fields.items() if name not in apart}


def digest_of(file: UploadedFile) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def claim(owner: str, key: str, fingerprint: str) -> tuple[IdempotentRequest, bool]:
    """The request that has the key, and whether it is this one."""
    now = timezone.now()
    same_key = IdempotentRequest.objects.filter(owner=owner, key=key)
    if known := same_key.filter(expires_at__gt=now).first():
        return known, False
    IdempotentRequest.objects.filter(expires_at__lte=now).delete()
    mine = IdempotentRequest(owner=owner, key=key, fingerprint=fingerprint, expires_at=now + CLAIMED)
    try:
        with transaction.atomic():
            mine.save(force_insert=True)
    except IntegrityError:
        # Two came at the same moment; the other one may even be done, or refused, by now.
        return same_key.first() or mine, False
    return mine, True


def answer_again(known: IdempotentRequest, fingerprint: str) -> HttpResponse:
    """What the first request was answered. Raises Conflict (idempotency_key_reused, secret_not_repeated)."""
    if known.fingerprint != fingerprint:
        message = "This Idempotency-Key came with another request. Use a new key for a new request."
        raise Conflict("idempotency_key_reused", message)
    if known.status_code is None:
        message = "The first request with this Idempotency-Key is still being answered. Try again in a moment."
        response = problem(status=409, code="in_progress", detail=message)
        response["Retry-After"] = str(RETRY_AFTER)
        return response
    if known.holds_secret:
        message = "That request was done, and its answer held a secret that is shown only once. Make a new one."
        raise Conflict("secret_not_repeated", message)
    headers = {**known.headers, "Idempotency-Replayed": "true"}
    return Response(json.loads(known.body) if known.body else None, status=known.status_code, headers=headers)


def answer_first(
    mine: IdempotentRequest, prepare: Callable[[], None], handle: Callable[[], HttpResponse]
) -> HttpResponse:
    """Run the handler and keep its answer. A refusal, or a fault, leaves the key as if it had not been used.

    `prepare` does what takes long, before the transaction: nobody else could write to SQLite meanwhile.
    """
    refusal: Exception | None = None
    kept = False
    try:
        prepare()
        # An effect that is undone after its handler has returned must leave no file behind either.
        with unstored_on_failure(), transaction.atomic():
            try:
                response = handle()
            except REFUSALS as error:
                # What was counted or written down about the attempt stays, as it would without a key.
                refusal = error
            else:
                kept = keep(mine, response)
    finally:
        if not kept:
            IdempotentRequest.objects.filter(pk=mine.pk, status_code=None).delete()
    if refusal is not None:
        raise refusal
    return response


def keep(mine: IdempotentRequest, response: HttpResponse) -> bool:
    """Store the answer beside the effect; returns whether there was one to be kept.

    Raises Conflict (in_progress), and thereby undoes the effect, where the claim was lost meanwhile.
    """
    if response.status_code >= 400:
        return False
    data = getattr(response, "data", None)
    holds_secret = isinstance(data, dict) and bool(SECRET_ANSWERS & data.keys())
    body = "" if holds_secret or data is None else JSONRenderer().render(data).decode()
    kept = IdempotentRequest.objects.filter(pk=mine.pk, status_code=None).update(
        status_code=response.status_code,
        headers={name: response[name] for name in KEPT_HEADERS if name in response},
        body=body,
        holds_secret=holds_secret,
        expires_at=timezone.now() + KEPT,
    )
    if not kept:
        raise Conflict("in_progress", "This took too long, and another request with the same key has taken over.")
    return True
