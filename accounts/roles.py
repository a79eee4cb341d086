"""The one table of roles and verbs, and the scopes that a token can narrow them to."""

from enum import StrEnum

from django.db import models


class Verb(StrEnum):
    """What a person or a client can be allowed to do within the own laboratory."""

    SEE = "see"
    UPLOAD = "upload"
    REVIEW = "review"
    RELEASE = "release"
    AUDIT = "audit"
    ADMINISTER = "administer"
    # The one verb that reaches beyond the own laboratory. No scope has it, so no token does.
    EMERGENCY = "open cases in an emergency"


class Role(models.TextChoices):
    TECHNOLOGIST = "technologist", "Technologist"
    READER = "reader", "Reader"
    AUDITOR = "auditor", "Auditor"
    ADMIN = "admin", "Laboratory administrator"
    SERVICE = "service", "Service account"


ROLE_VERBS: dict[str, frozenset[Verb]] = {
    Role.TECHNOLOGIST: frozenset({Verb.SEE, Verb.UPLOAD, Verb.REVIEW}),
    Role.READER: frozenset({Verb.SEE, Verb.UPLOAD, Verb.REVIEW, Verb.RELEASE, Verb.EMERGENCY}),
    Role.AUDITOR: frozenset({Verb.SEE, Verb.AUDIT}),
    Role.ADMIN: frozenset({Verb.SEE, Verb.ADMINISTER}),
    Role.SERVICE: frozenset({Verb.SEE, Verb.UPLOAD}),
}


class Scope(models.TextChoices):
    READ = "read", "Read"
    UPLOAD = "upload", "Upload"
    REVIEW = "review", "Review"
    RELEASE = "release", "Release"
    ADMIN = "admin", "Administer"


SCOPE_VERBS: dict[str, frozenset[Verb]] = {
    Scope.READ: frozenset({Verb.SEE}),
    Scope.UPLOAD: frozenset({Verb.UPLOAD}),
    Scope.REVIEW: frozenset({Verb.REVIEW}),
    Scope.RELEASE: frozenset({Verb.RELEASE}),
    Scope.ADMIN: frozenset({Verb.ADMINISTER, Verb.AUDIT}),
}


def scopes_of_role(role: str) -> list[str]:
    """Every scope that opens at least one verb of the role."""
    return [scope for scope, verbs in SCOPE_VERBS.items() if verbs & ROLE_VERBS[role]]
