"""Asks an instance whether it is ready, and puts the answer into words for the person who waits.

`python -m hematovision.readiness [PATH]` does so once, for operators and for the health checks of containers.
"""

import http.client
import json
import os
import sys
import time

from django.conf import settings

PATIENCE_SECONDS = 15.0  # an ordinary start is over by then, so nothing needs explaining before
INTERVAL_SECONDS = 0.5
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked for, not bound


class Readiness:
    def __init__(self, host: str, port: int, allowed_hosts: list[str]) -> None:
        self.address = (WILDCARDS.get(host, host), port)
        # Django answers only to its own names.
        named = [name.lstrip(".") for name in allowed_hosts if name != "*"]
        self.name = named[0] if named else "localhost"
        self.started_at = time.monotonic()
        self.next_look = self.started_at
        self.ready = False
        self.told = ""

    def news(self) -> str:
        """A sentence when there is something new to say, else nothing; after the first 200 it rests."""
        now = time.monotonic()
        if self.ready or now < self.next_look:
            return ""
        self.next_look = now + INTERVAL_SECONDS
        reason = self.look()
        if not reason:
            self.ready = True
            return f"Ready after {now - self.started_at:.0f} s."
        if reason == self.told or now - self.started_at < PATIENCE_SECONDS:
            return ""
        self.told = reason
        return f"Not ready yet: {reason}."

    def look(self, path: str = "/readyz") -> str:
        """Why the instance is not ready; empty when it is."""
        connection = http.client.HTTPConnection(*self.address, timeout=2)
        try:
            connection.request("GET", path, headers={"Host": self.name, "X-Forwarded-Proto": "https"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return "the web server does not answer"
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.OK:
            return ""
        try:
            checks = json.loads(body)["checks"]
            failing = [f"{name} ({check['code']})" for name, check in checks.items() if not check["ok"]]
        except (ValueError, KeyError, TypeError):
            return f"{path} answers {answer.status}"
        return ", ".join(failing)


def main() -> str:
    """The exit status: a sentence, which Python prints before it exits with 1, or nothing."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hematovision.settings")
    readiness = Readiness(settings.HOST, int(settings.PORT), settings.ALLOWED_HOSTS)
    return readiness.look(*sys.argv[1:2])


if __name__ == "__main__":
    sys.exit(main() or None)
