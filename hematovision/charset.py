"""Refuses forms in other encodings than UTF-8: Python knows "charsets" that are not for text, and forms need none."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from hematovision.error_pages import answer


class Utf8OnlyMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        charset = (request.content_params or {}).get("charset", "utf-8")
        if charset.lower() not in {"utf-8", "utf8"}:
            request.encoding = "utf-8"
            return answer(request, 400, "unsupported_charset", "Send text as UTF-8.")
        return self.get_response(request)
