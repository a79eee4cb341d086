"""Signing in and out, and passwords: all of allauth that is open here; and the API tokens.

Addresses are the administrator's to change and accounts the administrator's to make, so allauth's other pages have no
door; tests/test_accounts.py walks these and knocks at the others.
"""

from allauth.account import views
from django.urls import path, re_path
from django.views.generic import RedirectView

from accounts import token_views

urlpatterns = [
    path("login/", views.login, name="account_login"),
    path("logout/", views.logout, name="account_logout"),
    path("inactive/", views.account_inactive, name="account_inactive"),
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
    path("tokens/", token_views.tokens, name="tokens"),
]
