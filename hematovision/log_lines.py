"""How log lines look: structlog's and everybody else's alike."""

from typing import Any

import structlog

Event = structlog.typing.EventDict


def without_browser(logger: Any, name: str, event: Event) -> Event:
    """Drop the browser's description: it identifies people and explains nothing."""
    event.pop("user_agent", None)
    return event


# What every line goes through, structlog's own and those of everybody else.
STEPS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.TimeStamper(fmt="iso"),
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.format_exc_info,
]
RENDERERS = {
    "json": structlog.processors.JSONRenderer(),
    # A plain traceback: the rich one prints local variables, and with them what people typed.
    "console": structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
}


def described(form: str, level: str) -> dict[str, Any]:
    """Django's LOGGING for lines of the form `json` or `console`; sets structlog up to match."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *STEPS,
            without_browser,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            name: {
                "()": structlog.stdlib.ProcessorFormatter,
                "processor": renderer,
                "foreign_pre_chain": STEPS,
            }
            for name, renderer in RENDERERS.items()
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": form}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            # Every request is logged already, by route and ids instead of a path that may hold text.
            "django.request": {"level": "CRITICAL"},
            # At DEBUG, Pillow writes down what stands in a picture's metadata.
            "PIL": {"level": "INFO"},
        },
    }
