"""Who may call what: the role's verb, narrowed by the token's scopes."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.models import ApiToken, User
from accounts.roles import Verb


class MayDoVerb(BasePermission):
    """Reading needs `see`; every other method needs the view's `verb`. Which rows: `visible_to` decides."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.user, User):
            return False
        # A view without a verb of its own only reads; it answers 405 to whoever may see it.
        verb = Verb.SEE if request.method in SAFE_METHODS else getattr(view, "verb", Verb.SEE)
        narrowed = not isinstance(request.auth, ApiToken) or request.auth.may(verb)
        return request.user.may(verb) and narrowed
