from django.apps import AppConfig


class WiringConfig(AppConfig):
    name = "hematovision"
    label = "wiring"
