"""Variables of the environment: a blank one is an unset one, and what can't be read is refused in a sentence."""

import math
import os
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

YES = frozenset({"1", "true", "yes", "on", "y", "ok"})
NO = frozenset({"0", "false", "no", "off", "n"})


class Environment(environ.Env):
    """django-environ's reader, stricter with what people leave blank or mistype in a file of variables.

    Without it, a blank path is the folder where the process was started, a blank switch is off whatever its default,
    and a blank number ends the process with a traceback.
    """

    def get_value(
        self, var: str, cast: Any = None, default: Any = environ.Env.NOTSET, parse_default: bool = False
    ) -> Any:
        """The value, or the default where there is none. Raises ImproperlyConfigured."""
        if default is not self.NOTSET and not os.environ.get(var, "").strip():
            return default
        try:
            return super().get_value(var, cast, default, parse_default)
        except ValueError as error:
            message = f"{var} is {error}: {os.environ[var].strip()!r}."
            raise ImproperlyConfigured(message) from error

    @classmethod
    def parse_value(cls, value: Any, cast: Any) -> Any:
        """Raises ValueError, which says what the value is instead."""
        if cast is bool:
            return switch(value)
        if cast in (int, float):
            return number(value, cast)
        return super().parse_value(value, cast)


def switch(text: str) -> bool:
    said = text.strip().lower()
    if said not in YES | NO:
        message = "neither 1 nor 0"
        raise ValueError(message)
    return said in YES


def number(text: str, kind: type[int] | type[float]) -> int | float:
    """A number from 0 on: none of ours counts below that."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        message = "no whole number from 0 on" if kind is int else "no number from 0 on"
        raise ValueError(message)
    return value
