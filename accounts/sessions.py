"""The sessions of a person: where one is signed in, and ending them. Nobody else sees address and browser."""

import re
from dataclasses import dataclass
from datetime import datetime

from allauth.usersessions.models import UserSession
from django.db import transaction

from accounts import audit
from accounts.models import User

BROWSERS = (
    ("Edge", r"Edg(?:e|A|iOS)?/"),
    ("Opera", r"OPR/"),
    ("Firefox", r"Firefox/|FxiOS/"),
    ("Chrome", r"Chrome/|CriOS/"),
    ("Safari", r"Safari/"),
)
SYSTEMS = (
    ("Android", r"Android"),
    ("iPhone or iPad", r"iPhone|iPad"),
    ("Windows", r"Windows"),
    ("macOS", r"Macintosh"),
    ("Linux", r"Linux"),
)


@dataclass(frozen=True)
class OpenSession:
    """A session as its owner sees it."""

    id: int
    browser: str
    ip: str
    opened_at: datetime
    seen_at: datetime
    is_this_one: bool


def open_sessions(*, user: User, session_key: str | None) -> list[OpenSession]:
    """The user's live sessions, this one first, then the last seen. Those that ran out are forgotten on the way."""
    listed = [
        OpenSession(
            id=each.pk,
            browser=browser_of(each.user_agent),
            ip=each.ip,
            opened_at=each.created_at,
            seen_at=each.last_seen_at,
            is_this_one=each.session_key == session_key,
        )
        for each in UserSession.objects.purge_and_list(user)
    ]
    return sorted(listed, key=lambda each: (each.is_this_one, each.seen_at), reverse=True)


@transaction.atomic
def end_session(*, actor: User, session_id: int) -> bool:
    """End one of the actor's own sessions. False where there is none of that id any more."""
    session = UserSession.objects.filter(user=actor, pk=session_id).first()
    if session is None:
        return False
    session.end()
    audit.record(action="sessions_ended", actor=actor, target=actor, count=1)
    return True


@transaction.atomic
def end_other_sessions(*, actor: User, session_key: str | None) -> int:
    """End every session of the actor but this one. Returns how many."""
    ended = end_sessions(user=actor, but=session_key)
    if ended:
        audit.record(action="sessions_ended", actor=actor, target=actor, count=ended)
    return ended


def end_sessions(*, user: User, but: str | None = None) -> int:
    """End the user's sessions, for a service that records why. Returns how many."""
    sessions = list(UserSession.objects.filter(user=user).exclude(session_key=but or ""))
    for session in sessions:
        session.end()
    return len(sessions)


def browser_of(user_agent: str) -> str:
    """'Firefox on Windows', as far as the browser's own words tell; every browser claims to be some other one too."""
    browser = next((name for name, mark in BROWSERS if re.search(mark, user_agent)), "A browser")
    system = next((name for name, mark in SYSTEMS if re.search(mark, user_agent)), "")
    return f"{browser} on {system}" if system else browser
