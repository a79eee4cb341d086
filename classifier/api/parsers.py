"""Reads JSON bodies within bounds: DRF itself reads whatever is sent."""

import io
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from classifier.errors import RequestTooLarge


class BoundedJSONParser(JSONParser):
    """At most MAX_JSON_BYTES, and not nested more deeply than Python can follow."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        body = stream.read(settings.MAX_JSON_BYTES + 1)
        if len(body) > settings.MAX_JSON_BYTES:
            raise RequestTooLarge("request_too_large", "The JSON document is larger than is accepted here.")
        try:
            return super().parse(io.BytesIO(body), media_type, parser_context)
        except RecursionError as error:
            raise ParseError from error
