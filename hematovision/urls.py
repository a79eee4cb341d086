"""The doors: pages, API, admin, health."""

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path

from hematovision import health

admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns = [
    path("", include("classifier.urls")),
    path("accounts/", include("allauth.account.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("classifier.api.urls")),
    path("healthz", login_not_required(health.healthz), name="healthz"),
    path("readyz", login_not_required(health.readyz), name="readyz"),
]

handler400 = "hematovision.error_pages.bad_request"
handler403 = "hematovision.error_pages.forbidden"
handler404 = "hematovision.error_pages.not_found"
handler500 = "hematovision.error_pages.server_error"
