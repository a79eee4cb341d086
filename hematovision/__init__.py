"""Wiring: settings, URLs, processes, health. Nothing clinical lives here."""

from hematovision.celery import app as celery_app

__all__ = ["celery_app"]
