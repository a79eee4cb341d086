from typing import ClassVar

from django.apps import AppConfig
from django.contrib.staticfiles.apps import StaticFilesConfig


class WiringConfig(AppConfig):
    name = "hematovision"
    label = "wiring"


class UsedStaticFilesConfig(StaticFilesConfig):
    """Leaves out what no page asks for: API viewers and builds of them that are not used."""

    ignore_patterns: ClassVar[list[str]] = [
        *StaticFilesConfig.ignore_patterns,
        "swagger-ui-es-*",
        "redoc",
        "rest_framework",
    ]
