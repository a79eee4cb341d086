"""The doors: pages, API, admin, health."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.http import Http404
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from hematovision import error_pages, health, metrics

admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns = [
    # First, as programs ask the most often; the pages have dozens of addresses to be compared with.
    path("api/v1/", include("classifier.api.urls")),
    path("", include("classifier.urls")),
    path("accounts/", include("accounts.urls")),
    # The own password has one page, whose changes are in the audit trail.
    path("admin/password_change/", RedirectView.as_view(pattern_name="account_change_password")),
    # Django's "view on site": no row here has such a page, and its view fails on an id of another kind.
    re_path("^admin/r/", error_pages.not_found, {"exception": Http404()}),
    path("admin/", admin.site.urls),
    path("healthz", login_not_required(health.healthz), name="healthz"),
    path("readyz", login_not_required(health.readyz), name="readyz"),
    path("metrics", login_not_required(metrics.metrics), name="metrics"),
]

handler400 = "hematovision.error_pages.bad_request"
handler403 = "hematovision.error_pages.forbidden"
handler404 = "hematovision.error_pages.not_found"
handler500 = "hematovision.error_pages.server_error"
