"""Signing in and out, passwords, the second factor: all of allauth that is open here; and what accounts have besides.

Addresses are the administrator's to change and accounts the administrator's to make, so allauth's other pages have no
door; tests/test_accounts.py walks these and knocks at the others.
"""

from allauth.account import views
from allauth.mfa.base import views as second_factor
from allauth.mfa.recovery_codes.views import download_recovery_codes, generate_recovery_codes
from allauth.mfa.totp.views import deactivate_totp
from django.urls import path, re_path
from django.views.generic import RedirectView

from accounts import account_views, idle, invitation_views, oidc_views, people_views, second_factor_views, token_views

urlpatterns = [
    path("", account_views.account, name="account"),
    path("login/", views.login, name="account_login"),
    path("logout/", views.logout, name="account_logout"),
    path("inactive/", views.account_inactive, name="account_inactive"),
    path("reauthenticate/", views.reauthenticate, name="account_reauthenticate"),
    path("password/change/", views.password_change, name="account_change_password"),
    # allauth sends somebody without a password here; a mailed link is the one way to a first one.
    path("password/set/", RedirectView.as_view(pattern_name="account_reset_password"), name="account_set_password"),
    path("password/reset/", views.password_reset, name="account_reset_password"),
    path("password/reset/done/", views.password_reset_done, name="account_reset_password_done"),
    path("password/reset/key/done/", views.password_reset_from_key_done, name="account_reset_password_from_key_done"),
    re_path(
        r"^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        views.password_reset_from_key,
        name="account_reset_password_from_key",
    ),
    path("second-factor/", second_factor.index, name="mfa_index"),
    path("second-factor/code/", second_factor.authenticate, name="mfa_authenticate"),
    path("second-factor/code-again/", second_factor.reauthenticate, name="mfa_reauthenticate"),
    path("second-factor/set-up/", second_factor_views.set_up, name="mfa_activate_totp"),
    path("second-factor/turn-off/", deactivate_totp, name="mfa_deactivate_totp"),
    path("second-factor/recovery-codes/", second_factor_views.recovery_codes, name="mfa_view_recovery_codes"),
    path("second-factor/recovery-codes/new/", generate_recovery_codes, name="mfa_generate_recovery_codes"),
    path("second-factor/recovery-codes/file/", download_recovery_codes, name="mfa_download_recovery_codes"),
    path("sessions/", account_views.sessions, name="sessions"),
    path("activity/", idle.activity, name="activity"),
    path("tokens/", token_views.tokens, name="tokens"),
    path("people/", people_views.people, name="people"),
    path("invitation/<uuid:invitation_id>/<str:secret>/", invitation_views.invitation, name="invitation"),
    path("oidc/start/", oidc_views.start, name="oidc-start"),
    path("oidc/callback/", oidc_views.callback, name="oidc-callback"),
]
