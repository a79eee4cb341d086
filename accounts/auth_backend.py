"""Who is signed in, read together with the laboratory, which almost every request asks for."""

from typing import Any

from allauth.account.auth_backends import AuthenticationBackend

from accounts.models import User


class LaboratoryBackend(AuthenticationBackend):
    def get_user(self, user_id: Any) -> User | None:
        user = User.objects.select_related("laboratory").filter(pk=user_id).first()
        return user if user is not None and self.user_can_authenticate(user) else None
