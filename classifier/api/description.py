"""The OpenAPI document: what every operation has in common, said in one place."""

from http import HTTPStatus
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions, serializers

from accounts.tokens import ApiTokenAuthentication
from classifier.api.errors import CODES

PROBLEM = "application/problem+json"
KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Up to 255 visible ASCII characters. The same request again with the same key, within 24 hours, "
    "happens once and gets the same answer.",
)
KNOWN_TAG = OpenApiParameter(
    "If-None-Match", OpenApiTypes.STR, OpenApiParameter.HEADER, description="The ETag that the client has already."
)
EXPECTED_TAG = OpenApiParameter(
    "If-Match", OpenApiTypes.STR, OpenApiParameter.HEADER, description="The ETag that the change is based on."
)
SAID_OF = {
    "304": "Not modified: the client has the newest state.",
    "400": "Something in the request can't be used; `code` and `errors` say what.",
    "401": "No token, or one that is unknown, expired or revoked.",
    "403": "Visible, but not allowed to this role or these scopes.",
    "404": "Nothing there, or it belongs to another laboratory.",
    "406": "Asked for another type than there is.",
    "409": "It does not fit the state of things; `code` says why.",
    "412": "It was changed since the client read it.",
    "413": "Larger than is accepted.",
    "415": "A content type that is not read here.",
    "429": "Too many requests; Retry-After says how long to wait.",
    "503": "Something that the platform needs is missing for now.",
}
# The refusals that are the same everywhere, for an example of each.
KINDS: dict[str, type[exceptions.APIException]] = {
    "400": exceptions.ParseError,
    "401": exceptions.AuthenticationFailed,
    "403": exceptions.PermissionDenied,
    "404": exceptions.NotFound,
    "406": exceptions.NotAcceptable,
    "415": exceptions.UnsupportedMediaType,
    "429": exceptions.Throttled,
}


class ProblemErrorSerializer(serializers.Serializer[Any]):
    """One thing that is wrong: with a field, or a number of cells that block a release."""

    field = serializers.CharField(required=False)
    code = serializers.CharField()
    message = serializers.CharField()
    count = serializers.IntegerField(required=False)


class ProblemSerializer(serializers.Serializer[Any]):
    """Every refusal: RFC 9457 problem details. `code` is stable, `detail` is a sentence for people."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    # `errors` is also the name of an attribute of every serializer.
    errors = ProblemErrorSerializer(many=True, required=False)  # type: ignore[assignment]


def refusal(status: str, problem: dict[str, Any]) -> dict[str, Any]:
    """What the document says of a refusal; `problem` is the reference to its shape."""
    if status == "304":
        return {"description": SAID_OF[status]}
    content = {"schema": problem}
    if kind := KINDS.get(status):
        code, detail = CODES[kind]
        title = HTTPStatus(int(status)).phrase
        value = {"type": f"urn:hematovision:problem:{code}", "title": title, "status": int(status)}
        content["examples"] = {code: {"value": {**value, "detail": detail, "code": code}}}
    return {"content": {PROBLEM: content}, "description": SAID_OF[status]}


class ApiTokenScheme(OpenApiAuthenticationExtension):
    """Here and not beside the class that it describes: workers and commands need tokens, and no document."""

    target_class = ApiTokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": '`Authorization: Token YOUR_TOKEN`, made on the page "API tokens" or by '
            "`manage.py create_token EMAIL`.",
        }


class DescribedView(AutoSchema):
    """Adds to each operation its refusals and the headers that it heeds."""

    def get_override_parameters(self) -> list[Any]:
        also = {"POST": [KEY], "PATCH": [EXPECTED_TAG], "GET": [KNOWN_TAG] if self.is_tagged() else []}
        return [*super().get_override_parameters(), *also.get(self.method, [])]

    def is_tagged(self) -> bool:
        return getattr(self.view, "tagged", False) and not self._is_list_view()

    def is_deprecated(self) -> bool:
        return getattr(self.view, "deprecation", None) is not None or super().is_deprecated()

    def _get_response_bodies(self, direction: str = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        problem = self.resolve_serializer(ProblemSerializer, "response").ref
        for status in self.refusals():
            bodies.setdefault(status, refusal(status, problem))
        return dict(sorted(bodies.items()))

    def refusals(self) -> list[str]:
        """The statuses that the operation may refuse with."""
        if not self.view.authentication_classes:
            return ["406"]
        found = ["400", "401", "403", "404", "406", "429"]
        if self.method in {"POST", "PUT", "PATCH", "DELETE"}:
            found += ["409", "413", "415", "503"]
        if self.method == "PATCH":
            found.append("412")
        if self.method == "GET" and self.is_tagged():
            found.append("304")
        return found
