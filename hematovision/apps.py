from types import ModuleType

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class WiringConfig(AppConfig):
    name = "hematovision"
    label = "wiring"


class AuditDeskConfig(AdminConfig):
    default_site = "hematovision.admin_site.AuditDeskSite"


class UsedStaticFilesConfig(StaticFilesConfig):
    """Leaves out what no page asks for: API viewers and builds of them that are not used."""

    def __init__(self, app_name: str, app_module: ModuleType) -> None:
        super().__init__(app_name, app_module)
        self.ignore_patterns = [*self.ignore_patterns, "swagger-ui-es-*", "redoc", "rest_framework"]
