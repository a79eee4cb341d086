from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import idle, sign_in_audit

        sign_in_audit.connect()
        user_logged_in.connect(idle.start_of_session)
