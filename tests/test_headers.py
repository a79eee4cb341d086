"""What every answer says to a browser, and where secrets come from."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from classifier.models import CellImage

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = (ROOT / "hematovision" / "settings.py").read_text()
SignIn = Callable[[User], Client]


def require_strict(answer: Any) -> None:
    policy = answer["Content-Security-Policy"]
    for directive in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
        assert directive in policy
    for directive in ("base-uri 'none'", "form-action 'self'"):
        assert directive in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in answer["Permissions-Policy"]


@pytest.mark.parametrize(
    "path",
    ["/", "/cases/", "/about/", "/accounts/login/", "/admin/", "/nowhere/", "/api/v1/cases/", "/api/v1/nowhere/",
     "/api/v1/docs/", "/api/v1/schema/", "/healthz", "/readyz"],
)  # fmt: skip
def test_every_answer_has_the_strict_headers(path: str, sign_in: SignIn, auditor: User) -> None:
    for client in (Client(), sign_in(auditor)):
        require_strict(client.get(path))


def test_picture_and_refusals_have_the_strict_headers(
    sign_in: SignIn, reader: User, make_image: Callable[..., CellImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sign_in(reader)
    client.raise_request_exception = False
    require_strict(client.get(reverse("image-file", args=[make_image().pk])))
    require_strict(client.post(reverse("case-open"), {"specimen": "x" * 500}))
    checked = Client(enforce_csrf_checks=True)
    checked.force_login(reader)
    require_strict(checked.post(reverse("case-open")))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("classifier.views.bench.queue_context", broken)
    answer = client.get(reverse("home"))
    assert answer.status_code == 500
    require_strict(answer)


def test_cookies_are_for_this_site_alone(reader: User) -> None:
    from tests.conftest import PASSWORD

    client = Client()
    client.get(reverse("account_login"))
    client.post(reverse("account_login"), {"login": reader.email, "password": PASSWORD})

    session = client.cookies["hematovision_session"]
    assert session["httponly"]
    assert {cookie["samesite"] for cookie in client.cookies.values() if cookie.value} == {"Lax"}


SHOW = """
import django, json
django.setup()
from django.conf import settings
from django.test import Client
elsewhere = Client(headers={"host": "lab.example"}).get("/about/")
safe = Client(headers={"host": "lab.example", "X-Forwarded-Proto": "https"}).get("/healthz")
wrong = Client(headers={"host": "evil.example", "X-Forwarded-Proto": "https"}).get("/api/v1/cases/")
print(json.dumps({
    "debug": settings.DEBUG,
    "cookies": [settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE],
    "elsewhere": [elsewhere.status_code, elsewhere.headers.get("Location")],
    "hsts": safe.headers.get("Strict-Transport-Security"),
    "wrong": wrong.status_code,
}))
"""


def test_production_speaks_https_only(tmp_path: Path) -> None:
    """By default settings of a real instance, in a process of its own."""
    long = "0123456789abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    (tmp_path / "key").write_text(f"{long}\n")
    environment = {
        **{"PATH": os.environ["PATH"], "HEMATOVISION_VAR": str(tmp_path), "PRODUCTION": "1", "LOG_LEVEL": "CRITICAL"},
        **{"SECRET_KEY_FILE": str(tmp_path / "key"), "AUDIT_KEY": f"other-{long}", "ALLOWED_HOSTS": "lab.example"},
        **{"DATABASE_URL": "postgres://user:secret@db:5432/hematovision", "REDIS_URL": "redis://redis:6379/0"},
        "DJANGO_SETTINGS_MODULE": "hematovision.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    told = json.loads(done.stdout.splitlines()[-1])
    assert told["debug"] is False
    assert told["cookies"] == [True, True]
    assert told["elsewhere"] == [301, "https://lab.example/about/"]
    assert told["hsts"] == "max-age=31536000; includeSubDomains; preload"
    assert told["wrong"] == 400


def test_secrets_come_from_the_environment_or_a_file() -> None:
    """A name that says secret, key, password or token is read by `secret()`, which knows NAME_FILE as well."""
    read = re.findall(r"(env\.\w+|secret)\(\s*\"([A-Z_]+)\"", SETTINGS)
    sensitive = {name: how for how, name in read if re.search(r"SECRET|KEY|PASSWORD|TOKEN|_URL$", name)}

    assert {"SECRET_KEY", "AUDIT_KEY", "DATABASE_URL", "REDIS_URL", "EMAIL_URL"} <= set(sensitive)
    # Lists of former keys, and what only sounds like one.
    others = {name for name, how in sensitive.items() if how != "secret"}
    assert others <= {"SECRET_KEY_FALLBACKS", "AUDIT_KEY_FALLBACKS", "OIDC_SATISFIES_SECOND_FACTOR"}
    assert not re.search(r"(?:SECRET|KEY|PASSWORD|TOKEN)\w* = \"[^\"]{12,}\"(?!  # noqa)", SETTINGS)
