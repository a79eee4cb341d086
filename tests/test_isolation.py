"""Every address of the site, every role, the own laboratory and another one.

The addresses come from the URL conf, so that a new one can't be forgotten: it needs a row in PAGES (or, in the API, in
the table of tests/test_api_table.py), and whatever its path takes needs a thing of the world.
"""

import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Invitation, User
from accounts.roles import Role
from accounts.tokens import create_token
from classifier import services
from classifier.models import (
    BlindReread,
    CellImage,
    EmergencyAccess,
    Export,
    LegalHold,
    ModelTrial,
    PseudonymErasure,
    RemovedPicture,
    RereadCell,
    RetentionRule,
    Review,
    WorkerHeartbeat,
)
from tests.conftest import person
from tests.factories import prediction_of
from tests.test_api_table import PUBLIC, TABLE, World, world
from tests.url_walk import ADDRESSES, Address

__all__ = ["world"]
ROLES = (Role.TECHNOLOGIST, Role.READER, Role.AUDITOR, Role.ADMIN)
# Statuses for technologist, reader, auditor, administrator and platform operator: GET, then POST without anything.
PAGES: dict[str, str] = {
    "home": "200 200 200 200 200 | 405 405 405 405 405",
    "about": "200 200 200 200 200 | 200 200 200 200 200",
    "models": "200 200 200 200 200 | 405 405 405 405 405",
    "model": "200 200 200 200 200 | 405 405 405 405 405",
    "model-manifest": "200 200 200 200 200 | 405 405 405 405 405",
    "model-mistake": "404 404 404 404 404 | 405 405 405 405 405",
    "queue-line": "200 200 200 200 200 | 405 405 405 405 405",
    "upload-to-bench": "302 302 302 302 302 | 400 400 400 400 400",
    "cases": "200 200 200 200 200 | 405 405 405 405 405",
    "case-search": "302 302 302 302 302 | 400 400 400 400 400",
    "case-open": "200 200 403 403 403 | 200 200 403 403 403",
    "case": "200 200 200 200 404 | 405 405 405 405 405",
    "case-changes": "302 302 302 302 302 | 405 405 405 405 405",
    "case-differential": "302 302 302 302 404 | 405 405 405 405 405",
    "case-tiles": "200 200 200 200 404 | 405 405 405 405 405",
    "upload-to-case": "302 302 302 302 302 | 400 400 400 400 404",
    "case-edit": "200 200 403 403 404 | 302 302 403 403 404",
    "case-assign": "200 200 403 403 404 | 302 302 403 403 404",
    "case-void": "403 200 403 403 404 | 403 400 403 403 404",
    "case-release": "403 200 403 403 404 | 403 200 403 403 404",
    "case-amend": "403 200 403 403 404 | 403 200 403 403 404",
    "case-reports": "302 302 302 302 404 | 405 405 405 405 405",
    "report": "200 200 200 200 404 | 405 405 405 405 405",
    "report-file": "200 200 200 200 404 | 405 405 405 405 405",
    "batches": "200 200 200 200 200 | 400 400 403 403 403",
    "batch": "200 200 200 200 404 | 405 405 405 405 405",
    "batch-csv": "200 200 200 200 404 | 405 405 405 405 405",
    "batch-act": "302 302 302 302 302 | 302 302 403 403 404",
    "exports": "403 403 200 403 403 | 403 403 302 403 403",
    "export-file": "403 403 403 403 403 | 405 405 405 405 405",
    "export-withdraw": "403 403 302 403 403 | 403 403 302 403 403",
    "images": "200 200 200 200 200 | 405 405 405 405 405",
    "image-cards": "200 200 200 200 200 | 405 405 405 405 405",
    "image": "200 200 200 200 404 | 405 405 405 405 405",
    "image-file": "200 200 200 200 404 | 405 405 405 405 405",
    "image-heat-map": "200 200 200 200 404 | 405 405 405 405 405",
    "image-thumbnail": "404 404 404 404 404 | 405 405 405 405 405",
    "image-review": "302 302 302 302 302 | 302 302 302 302 404",
    "image-void": "302 302 302 302 302 | 403 302 403 403 404",
    "image-requeue": "302 302 302 302 302 | 302 302 302 302 404",
    "case-trial": "200 200 200 200 404 | 403 400 403 400 404",
    "trials": "200 200 200 200 200 | 405 405 405 405 405",
    "laboratory": "200 200 200 200 404 | 403 403 403 400 404",
    "retention": "403 403 200 200 403 | 403 403 403 400 403",
    "erasure": "403 403 403 200 403 | 403 403 403 400 403",
    "case-hold": "200 200 200 200 404 | 403 403 403 400 404",
    "webhooks": "403 403 403 200 403 | 403 403 403 400 403",
    "webhook": "403 403 403 200 404 | 405 405 405 405 405",
    "webhook-test": "302 302 302 302 302 | 403 403 403 302 404",
    "webhook-send-now": "302 302 302 302 302 | 403 403 403 302 404",
    "webhook-rotate": "302 302 302 302 302 | 403 403 403 200 404",
    "webhook-switch-off": "302 302 302 302 302 | 403 403 403 302 404",
    "webhook-replay": "403 403 403 302 404 | 403 403 403 302 404",
    "emergency": "403 200 200 200 403 | 403 400 403 403 403",
    "emergency-end": "405 405 405 405 405 | 404 404 404 302 404",
    "rereads": "200 200 200 403 403 | 403 403 400 403 403",
    "reread": "404 200 200 404 404 | 404 404 403 404 404",
    "reread-close": "302 302 302 302 302 | 404 403 302 404 404",
    "reread-picture": "404 200 404 404 404 | 405 405 405 405 405",
    "notifications": "200 200 200 200 200 | 405 405 405 405 405",
    "notifications-read": "302 302 302 302 302 | 302 302 302 302 302",
    "notification-open": "302 404 404 404 404 | 302 404 404 404 404",
    "account": "200 200 200 200 200 | 405 405 405 405 405",
    "account_login": "302 302 302 302 302 | 302 302 302 302 302",
    "account_logout": "200 200 200 200 200 | 302 302 302 302 302",
    "account_inactive": "200 200 200 200 200 | 405 405 405 405 405",
    "account_reauthenticate": "200 200 200 200 200 | 200 200 200 200 200",
    "account_change_password": "200 200 200 200 200 | 200 200 200 200 200",
    "account_set_password": "302 302 302 302 302 | 302 302 302 302 302",
    "account_reset_password": "200 200 200 200 200 | 200 200 200 200 200",
    "account_reset_password_done": "200 200 200 200 200 | 405 405 405 405 405",
    "account_reset_password_from_key_done": "200 200 200 200 200 | 405 405 405 405 405",
    "account_reset_password_from_key": "404 404 404 404 404 | 404 404 404 404 404",
    "mfa_index": "200 200 200 200 200 | 405 405 405 405 405",
    "mfa_authenticate": "302 302 302 302 302 | 302 302 302 302 302",
    "mfa_reauthenticate": "302 302 302 302 302 | 302 302 302 302 302",
    "mfa_activate_totp": "302 302 302 302 302 | 302 302 302 302 302",
    "mfa_deactivate_totp": "404 404 404 404 404 | 404 404 404 404 404",
    "mfa_view_recovery_codes": "404 404 404 404 404 | 405 405 405 405 405",
    "mfa_generate_recovery_codes": "302 302 302 302 302 | 302 302 302 302 302",
    "mfa_download_recovery_codes": "404 404 404 404 404 | 404 404 404 404 404",
    "sessions": "200 200 200 200 200 | 404 404 404 404 404",
    "activity": "200 200 200 200 200 | 200 200 200 200 200",
    "tokens": "200 200 200 200 200 | 404 404 404 404 404",
    "people": "404 404 404 200 404 | 404 404 404 404 404",
    "invitation": "200 200 200 200 200 | 200 200 200 200 200",
    "oidc-start": "404 404 404 404 404 | 405 405 405 405 405",
    "oidc-callback": "404 404 404 404 404 | 405 405 405 405 405",
    "^admin/r/": "404 404 404 404 404 | 404 404 404 404 404",
    "healthz": "200 200 200 200 200 | 200 200 200 200 200",
    "readyz": "503 503 503 503 503 | 503 503 503 503 503",
    "metrics": "200 200 200 200 200 | 405 405 405 405 405",
}
# Open to everybody on purpose: none of them shows anything of a laboratory.
OPEN = {
    "about", "account_login", "account_inactive", "account_reset_password", "account_reset_password_done",
    "account_reset_password_from_key_done", "invitation", "healthz", "readyz", "metrics",
}  # fmt: skip


# --- The world ---------------------------------------------------------------------------------------------------
@pytest.fixture
def everything(world: World, technologist: User, reader: User, auditor: User, lab_admin: User) -> World:
    """One of everything that an address of the site can be about, all of it of one laboratory."""
    case, laboratory = world["signed"], world["case"].laboratory
    review = Review.objects.exclude(prediction=None).select_related("image").first()
    assert review is not None
    reread = BlindReread.objects.create(
        laboratory=laboratory, reader=reader, drawn_by=auditor, drawn_from=1, size=1, seed="x"
    )
    RereadCell.objects.create(reread=reread, position=1, image=review.image, review=review)
    rule = RetentionRule.objects.create(laboratory=laboratory, version=1, keep_days=30, reason="Ours", by=lab_admin)
    RemovedPicture.objects.create(image=world["failed"], rule=rule)
    LegalHold.objects.create(case=case, version=1, holds=False, reason="No longer", by=lab_admin)
    PseudonymErasure.objects.create(laboratory=laboratory, digest="0", cases=[], reason="Asked", by=lab_admin)
    later = timezone.now() + timedelta(hours=1)
    helper = person("helper@east.example", "Hal", person_laboratory("Eastside"), Role.READER)
    access = EmergencyAccess.objects.create(case=world["case"], user=helper, reason="Bleeding", expires_at=later)
    invitation = Invitation.objects.create(
        laboratory=laboratory, email="new@north.example", role=Role.READER, secret_sha256="0" * 64,
        invited_by=lab_admin, expires_at=later,
    )  # fmt: skip
    services.void_image(actor=reader, image=world["failed"], reason="Smudged")
    services.amend_report(actor=reader, case=case, kind="corrected", reason="Wrong tube")
    WorkerHeartbeat.objects.create(host="h", pid=1, seen_at=timezone.now())
    prediction_of(world["failed"], world["model"])
    create_token(user=technologist)
    export = Export.objects.create(laboratory=laboratory, kind="cases", requested_by=auditor)
    more = {"image": review.image, "export": export, "reread": reread, "invitation": invitation, "access": access}
    return world | more


def person_laboratory(name: str) -> Any:
    return apps.get_model("accounts", "Laboratory").objects.create(name=name)


# What stands for a part of a path: the name of a thing in the world, or a value.
THING_OF = {
    "case_id": "signed", "image_id": "image", "batch_id": "batch", "export_id": "export", "reread_id": "reread",
    "endpoint_id": "webhook", "message_id": "message", "notification_id": "notification", "trial_id": "trial",
    "invitation_id": "invitation", "access_id": "access", "report_id": "report", "version_id": "model",
}  # fmt: skip
VALUE_OF = {
    "version": 1, "kind": "pdf", "act": "pause", "position": 1, "secret": "guessed", "uidb36": "1", "key": "1-guessed",
    "data_set": "pbc", "number": 0, "app_label": "accounts", "url": "nowhere", "content_type_id": 1,
    "object_id": 1,
}  # fmt: skip
IDS = set(THING_OF) | {"object_id", "id"}
# Of the platform, not of a laboratory; and an invitation, which a secret opens and not a role.
SHARED = {"version_id", "invitation_id"}


def values_for(address: Address, world: World) -> dict[str, Any]:
    """What to fill an address with so that it is about a thing of the world."""
    values: dict[str, Any] = {}
    for name in address.takes:
        if name in THING_OF:
            values[name] = world[THING_OF[name]].pk
        elif name in {"object_id", "id"} and "content_type_id" not in address.takes:
            values[name] = admin_row(address, world).pk
        else:
            assert name in VALUE_OF, f"{address.route} takes {name!r}: say in THING_OF or VALUE_OF what that is."
            values[name] = VALUE_OF[name]
    if address.name == "batch-csv":
        values["kind"] = "results"
    return values


def admin_row(address: Address, world: World) -> Any:
    """A row of the world's laboratory that an admin page is about."""
    model = {model._meta.model_name: model for model in admin.site._registry}[address.route.split("/")[2]]
    laboratory = world["case"].laboratory
    if model._meta.model_name == "laboratory":
        return laboratory
    mine = {
        "user": {"email": "tess@north.example"},
        "auditevent": {"laboratory": laboratory},
    }.get(str(model._meta.model_name), {})
    row = model._default_manager.filter(**mine).first()
    assert row is not None, f"{address.route}: the world needs a row of {model.__name__}."
    return row


# --- Asking ------------------------------------------------------------------------------------------------------
def signed_in(user: User | None) -> Client:
    client = Client()
    client.raise_request_exception = False
    if user is not None:
        client.force_login(user)
    return client


def status_of(client: Client, method: str, path: str, *, file: bytes = b"") -> tuple[int, str]:
    """The status and where it leads; nothing of the call stays."""
    cookies = SimpleCookie({name: each.value for name, each in client.cookies.items()})
    body = {"file": SimpleUploadedFile("cell.jpg", file)} if file and method == "post" else None
    with transaction.atomic():
        answer: Any = getattr(client, method)(path, body)
        if answer.streaming:
            list(answer.streaming_content)
        transaction.set_rollback(True)
    client.cookies = cookies
    return answer.status_code, answer.headers.get("Location", "")


def final_status_of(client: Client, method: str, path: str, *, file: bytes = b"") -> int:
    """A form's address sends who comes by a link to the form's page: what is there counts."""
    status, leads_to = status_of(client, method, path, file=file)
    if status == 302 and method == "get" and "/login/" not in leads_to:
        return status_of(client, "get", leads_to)[0]
    return status


def pages() -> list[Address]:
    return [address for address in ADDRESSES.values() if not address.is_api and not is_admin(address)]


def is_admin(address: Address) -> bool:
    return address.route.startswith("admin/")


def about_something(addresses: Iterable[Address]) -> list[Address]:
    return [address for address in addresses if IDS & set(address.takes) and not SHARED & set(address.takes)]


def line_of(address: Address, clients: list[Client], world: World) -> str:
    path = address.filled(values_for(address, world))
    parts = [[str(status_of(client, method, path)[0]) for client in clients] for method in ("get", "post")]
    return " | ".join(" ".join(part) for part in parts)


@pytest.fixture
def cast(technologist: User, reader: User, auditor: User, lab_admin: User, operator: User) -> list[User]:
    return [technologist, reader, auditor, lab_admin, operator]


@pytest.fixture
def strangers(other_laboratory: Any) -> list[User]:
    """Another laboratory's people, one in every role."""
    return [person(f"{role}@south.example", f"Stan {role}", other_laboratory, role) for role in ROLES]


def test_every_address_has_its_row() -> None:
    missing = {address.name for address in pages()} - set(PAGES)
    assert not missing, f"Say in PAGES who may open these, and see that strangers get a 404: {sorted(missing)}"
    assert set(PAGES) <= set(ADDRESSES)
    in_api = {address.name for address in ADDRESSES.values() if address.is_api}
    assert in_api == {name for name, _ in TABLE} | PUBLIC


def test_own_laboratory_page_by_page_and_role_by_role(everything: World, cast: list[User]) -> None:
    clients = [signed_in(user) for user in cast]
    found = {address.name: line_of(address, clients, everything) for address in pages()}

    different = {name: (line, PAGES.get(name, "")) for name, line in found.items() if line != PAGES.get(name)}
    assert not different, "\n" + "\n".join(f'    "{name}": "{line}",' for name, (line, _) in different.items())


def test_strangers_of_every_role_get_404_for_everything_of_another_laboratory(
    everything: World, strangers: list[User], operator: User
) -> None:
    wrong = []
    clients = [(user, signed_in(user)) for user in [*strangers, operator]]
    for address in about_something(pages()):
        path = address.filled(values_for(address, everything))
        for user, client in clients:
            for method in ("get", "post"):
                status = final_status_of(client, method, path, file=b"cell")
                # What only a verb opens may say no before it looks; so it does to its own laboratory's people.
                refused_at_home = status == 403 and (user == operator or is_no_verb(address, method, user.role))
                if status not in {404, 405} and not refused_at_home:
                    wrong.append((address.name, method, user.role or "operator", status))
    assert wrong == []


def is_no_verb(address: Address, method: str, role: str) -> bool:
    """Whether the role is refused at home as well."""
    get, _, post = PAGES[address.name].partition(" | ")
    return (get if method == "get" else post).split()[ROLES.index(Role(role))] == "403"


# The index, with a sentence; and the trail of the own laboratory, in which another one's row has no line.
OWN_TRAIL = "/admin/accounts/auditevent/?q="


def test_admin_rows_of_another_laboratory_are_not_there(everything: World, strangers: list[User]) -> None:
    clients = [signed_in(user) for user in strangers if user.role in {Role.AUDITOR, Role.ADMIN}]
    wrong = []
    for address in about_something(address for address in ADDRESSES.values() if is_admin(address)):
        if any(word in address.route for word in ("modelversion", "workerheartbeat", "content_type_id")):
            continue
        path = address.filled(values_for(address, everything))
        for client in clients:
            for method in ("get", "post"):
                status, leads_to = status_of(client, method, path)
                # The admin leads to its index where a row is not there, and to the row's own page from a short address.
                gone = status in {403, 404, 405} or (
                    status == 302 and (leads_to == "/admin/" or leads_to.startswith(OWN_TRAIL))
                )
                if not gone and status == 302 and leads_to.endswith("/change/"):
                    gone = status_of(client, "get", leads_to)[1] == "/admin/" or (
                        status_of(client, "get", leads_to)[0] in {403, 404}
                    )
                if not gone:
                    wrong.append((address.route, method, status, leads_to))
    assert wrong == []


def test_admin_lists_hold_nothing_of_another_laboratory(everything: World, strangers: list[User]) -> None:
    client = signed_in(strangers[ROLES.index(Role.AUDITOR)])
    own = {str(thing.pk) for name, thing in everything.items() if name != "model"}
    for address in ADDRESSES.values():
        if is_admin(address) and address.name.endswith("_changelist"):
            with transaction.atomic():
                text = client.get(address.filled({})).content.decode()
                transaction.set_rollback(True)
            assert not [pk for pk in own if pk in text], address.route
            assert everything["case"].accession_number not in text


def test_nobody_is_asked_to_sign_in_or_finds_something_open_on_purpose(everything: World) -> None:
    client, wrong = signed_in(None), []
    for address in ADDRESSES.values():
        if address.is_api or address.name in OPEN:
            continue
        for method in ("get", "post"):
            status, leads_to = status_of(client, method, address.filled(values_for(address, everything)))
            to_sign_in = status == 302 and "/login/" in leads_to
            if not to_sign_in and status not in {401, 403, 404, 405}:
                wrong.append((address.name, method, status, leads_to))
    assert wrong == []


GUESSES: dict[str, Callable[[], object]] = {
    "another uuid": uuid.uuid4,
    "no uuid": lambda: "'%20OR%201=1--",
}


def test_wrong_secret_says_the_same_of_every_invitation(everything: World) -> None:
    known, unknown = (
        signed_in(None).get(f"/accounts/invitation/{pk}/guessed/") for pk in (everything["invitation"].pk, uuid.uuid4())
    )

    assert known.status_code == unknown.status_code
    assert everything["invitation"].email not in known.content.decode()
    assert everything["case"].laboratory.name not in known.content.decode()


@pytest.mark.parametrize("guess", GUESSES)
def test_guessed_ids_are_not_there(guess: str, everything: World, cast: list[User]) -> None:
    person_client, wrong = signed_in(cast[1]), []
    script = APIClient()
    script.force_authenticate(cast[1])
    for address in about_something(ADDRESSES.values()):
        if is_admin(address):
            continue
        values = values_for(address, everything) if not address.is_api else dict.fromkeys(address.takes, 1)
        values |= {name: GUESSES[guess]() for name in address.takes if name in IDS}
        for method in ("get", "post"):
            status = final_status_of(script if address.is_api else person_client, method, address.filled(values))
            if status not in {403, 404, 405}:
                wrong.append((address.name, method, status))
    assert wrong == []


def test_ids_of_what_belongs_to_a_laboratory_are_random() -> None:
    """So that one id says nothing about another."""
    own: set[Any] = {
        CellImage,
        ModelTrial,
        Export,
        AuditEvent,
        *(row for row in apps.get_app_config("classifier").get_models()),
    }
    numbered = {
        model.__name__ for model in own if model._meta.pk.get_internal_type() not in {"UUIDField", "OneToOneField"}
    }
    assert numbered == NUMBERED


# Never named in an address.
NUMBERED = {"WorkerHeartbeat", "WorkerCounts"}


@pytest.mark.parametrize(
    "path",
    [
        "/media/", "/media/images/", "/var/media/", "/static/../media/x", "/static/../db.sqlite3", "/db.sqlite3",
        "/static/..%2f..%2fsecret_key", "/static/%2e%2e/%2e%2e/hematovision/settings.py", "/static//etc/passwd",
        "/secret_key", "/.env", "/.git/config", "/var/demo-users", "/static/..\\..\\secret_key", "/cases/../media/",
    ],
)  # fmt: skip
def test_files_are_never_served_by_their_path(path: str, make_image: Callable[..., CellImage], reader: User) -> None:
    make_image()
    client = signed_in(reader)

    assert client.get(path).status_code == 404
    assert client.get(path, PATH_INFO=path).status_code == 404


def test_picture_is_not_found_by_the_path_under_which_it_is_stored(
    make_image: Callable[..., CellImage], reader: User
) -> None:
    image, client = make_image(), signed_in(reader)

    for before in ("/", "/media/", "/static/", "/static/../media/"):
        assert client.get(f"{before}{image.file.name}").status_code == 404
    with pytest.raises(NotImplementedError):
        _ = image.file.url


# --- Links that end ----------------------------------------------------------------------------------------------
def test_password_link_ends(reader: User, settings: Any) -> None:
    assert timedelta(days=3).total_seconds() >= settings.PASSWORD_RESET_TIMEOUT
