"""The audit desk: what each role finds there, and that nobody edits a fact."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import audit
from accounts.models import ApiToken, AuditEvent, Laboratory, User
from accounts.tokens import create_token
from classifier import services
from classifier.models import (
    Amendment,
    Batch,
    BlindReread,
    CellImage,
    EmergencyAccess,
    Export,
    LaboratorySettings,
    LegalHold,
    ModelVersion,
    PseudonymErasure,
    RemovedPicture,
    Report,
    RetentionRule,
    Void,
    WebhookEndpoint,
    WebhookMessage,
    WorkerHeartbeat,
)
from ml.model_card import shipped_bundle
from tests.conftest import PASSWORD
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
MODELS = sorted(model._meta.label_lower for model in admin.site._registry)
VISIBLE = {
    "auditor": {
        "accounts.auditevent", "accounts.user", "classifier.case", "classifier.cellimage", "classifier.modelversion",
        "classifier.prediction", "classifier.workerheartbeat", "classifier.review", "classifier.report",
        "classifier.amendment", "classifier.void", "classifier.laboratorysettings", "classifier.batch",
        "classifier.blindreread", "classifier.emergencyaccess", "classifier.export", "classifier.legalhold",
        "classifier.pseudonymerasure", "classifier.removedpicture", "classifier.retentionrule",
        "classifier.webhookendpoint", "classifier.webhookmessage",
    },
    "lab_admin": {"accounts.user", "accounts.apitoken", "accounts.laboratory"},
    "operator": {"accounts.auditevent", "accounts.laboratory", "classifier.modelversion", "classifier.workerheartbeat"},
}  # fmt: skip


def list_url(model: str) -> str:
    return reverse("admin:" + model.replace(".", "_") + "_changelist")


def test_desk_holds_what_was_agreed() -> None:
    assert set(MODELS) == set().union(*VISIBLE.values())


@pytest.mark.parametrize("actor", ["technologist", "reader", "auditor", "lab_admin", "operator"])
def test_each_role_opens_its_own_lists_only(
    actor: str, sign_in: SignIn, request: pytest.FixtureRequest, model_version: ModelVersion
) -> None:
    client = sign_in(request.getfixturevalue(actor))

    statuses = {model: client.get(list_url(model)).status_code for model in MODELS}

    if actor in {"technologist", "reader"}:
        assert set(statuses.values()) <= {302, 403}
    else:
        assert statuses == {model: 200 if model in VISIBLE[actor] else 403 for model in MODELS}


@pytest.fixture
def rows(make_image: MakeImage, model_version: ModelVersion, reader: User) -> dict[str, Any]:
    """A row of every kind that the auditor reads, with all that belongs to one signed and amended case."""
    image = make_image("classified")
    prediction = prediction_of(image, model_version)
    review = services.review_image(actor=reader, image=image, verdict="CONFIRMED")
    content = '{"schema": 1}'
    report = Report.objects.create(
        case=image.case,
        version=1,
        kind="released",
        payload_json=content,
        sha256=sha256(content.encode()).hexdigest(),
        signed_by=reader,
        signed_at=timezone.now(),
    )
    return {
        "accounts.auditevent": AuditEvent.objects.filter(laboratory=reader.laboratory).first(),
        "classifier.case": image.case,
        "classifier.cellimage": image,
        "classifier.prediction": prediction,
        "classifier.review": review,
        "classifier.report": report,
        "classifier.amendment": Amendment.objects.create(
            case=image.case, report=report, kind="amended", reason="more cells", by=reader
        ),
        "classifier.void": Void.objects.create(image=image, reason="wrong patient", by=reader),
        "classifier.laboratorysettings": LaboratorySettings.objects.create(
            laboratory=image.case.laboratory, version=1, cell_types=[]
        ),
        **trust_rows(image, reader),
    }


def trust_rows(image: CellImage, user: User) -> dict[str, Any]:
    """A row of each kind that is about keeping, holding, erasing, exporting, reading again and telling others."""
    about = {"laboratory": user.laboratory}
    soon = timezone.now() + timedelta(hours=1)
    rule = RetentionRule.objects.create(**about, version=1, keep_days=90, reason="policy", by=user)
    endpoint = WebhookEndpoint.objects.create(
        **about, url="https://lis.example/hook", events=["report.released"], secret="hidden-secret", made_by=user
    )
    return {
        "classifier.batch": Batch.objects.create(**about, case=image.case, submitted_by=user),
        "classifier.blindreread": BlindReread.objects.create(
            **about, reader=user, drawn_by=user, drawn_from=10, size=5, seed="1"
        ),
        "classifier.emergencyaccess": EmergencyAccess.objects.create(
            case=image.case, user=user, reason="bleeding", expires_at=soon
        ),
        "classifier.export": Export.objects.create(**about, kind="reviews", requested_by=user),
        "classifier.legalhold": LegalHold.objects.create(
            case=image.case, version=1, holds=True, reason="court", by=user
        ),
        "classifier.pseudonymerasure": PseudonymErasure.objects.create(
            **about, digest="0" * 64, cases=[str(image.case_id)], reason="asked for", by=user
        ),
        "classifier.removedpicture": RemovedPicture.objects.create(image=image, rule=rule),
        "classifier.retentionrule": rule,
        "classifier.webhookendpoint": endpoint,
        "classifier.webhookmessage": WebhookMessage.objects.create(endpoint=endpoint, event="webhook.test", content={}),
    }


def contents() -> dict[str, list[dict[str, Any]]]:
    """Every row of every table of the desk that is no account, as it is stored."""
    tables = [model for model in admin.site._registry if model._meta.label_lower not in ACCOUNTS]
    return {
        model._meta.label_lower: list(model._default_manager.order_by("pk").values())
        for model in tables
        if model is not AuditEvent
    }


ACCOUNTS = {"accounts.user", "accounts.apitoken", "accounts.laboratory"}


@pytest.mark.parametrize("actor", ["technologist", "reader", "auditor", "lab_admin", "operator"])
def test_nobody_adds_changes_or_deletes_anything_but_accounts_here(
    actor: str, sign_in: SignIn, rows: dict[str, Any], model_version: ModelVersion, request: pytest.FixtureRequest
) -> None:
    client = sign_in(request.getfixturevalue(actor))
    WorkerHeartbeat.objects.create(host="a", pid=1, seen_at=timezone.now())
    every = {
        **rows,
        "classifier.modelversion": model_version,
        "classifier.workerheartbeat": WorkerHeartbeat.objects.get(),
    }
    assert set(every) | ACCOUNTS == set(MODELS)
    events = set(AuditEvent.objects.values_list("pk", flat=True))
    trail = list(AuditEvent.objects.filter(pk__in=events).order_by("pk").values())
    before = contents()

    for model, row in every.items():
        name = f"admin:{model.replace('.', '_')}"
        fields = {field.name: "1" for field in row._meta.fields}
        for address in (
            reverse(f"{name}_add"),
            reverse(f"{name}_change", args=[row.pk]),
            reverse(f"{name}_delete", args=[row.pk]),
        ):
            assert client.post(address, {**fields, "post": "yes", "_save": "Save"}).status_code in {302, 403, 404}
        for address in (reverse(f"{name}_add"), reverse(f"{name}_delete", args=[row.pk])):
            assert client.get(address).status_code in {302, 403, 404}
        for posted in (
            {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"},
            {**{f"form-0-{key}": value for key, value in fields.items()}, "form-TOTAL_FORMS": "1", "_save": "Save"},
        ):
            assert client.post(list_url(model), posted).status_code in {200, 302, 403}

    assert contents() == before
    assert list(AuditEvent.objects.filter(pk__in=events).order_by("pk").values()) == trail


def test_secret_of_an_endpoint_is_not_shown(sign_in: SignIn, auditor: User, rows: dict[str, Any]) -> None:
    page = sign_in(auditor).get(
        reverse("admin:classifier_webhookendpoint_change", args=[rows["classifier.webhookendpoint"].pk])
    )

    assert "report.released" in page.content.decode()
    assert "hidden-secret" not in page.content.decode()


def test_page_of_a_user_tells_nothing_of_the_hash(
    sign_in: SignIn, auditor: User, lab_admin: User, technologist: User
) -> None:
    address = reverse("admin:accounts_user_change", args=[technologist.pk])

    page = sign_in(lab_admin).get(address).content.decode()

    assert "A password is set." in page
    for word in ("algorithm", "salt", "md5", "LDAP"):
        assert word not in page
    assert "../password/" in page
    assert "../password/" not in sign_in(auditor).get(address).content.decode()
    for form in ("admin:accounts_user_add", "admin:auth_user_password_change"):
        args = [] if form.endswith("add") else [technologist.pk]
        assert "LDAP" not in sign_in(lab_admin).get(reverse(form, args=args)).content.decode()


READ_ONLY = sorted(VISIBLE["auditor"] - {"accounts.user", "classifier.modelversion", "classifier.workerheartbeat"})


@pytest.mark.parametrize("model", READ_ONLY)
def test_auditor_reads_every_detail_and_changes_none(
    model: str, sign_in: SignIn, auditor: User, rows: dict[str, Any]
) -> None:
    row = rows[model]
    client, name = sign_in(auditor), model.replace(".", "_")
    change = reverse(f"admin:{name}_change", args=[row.pk])

    assert client.get(change).status_code == 200
    assert client.post(change, {"status": "failed"}).status_code == 403
    assert client.post(reverse(f"admin:{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    assert client.get(reverse(f"admin:{name}_add")).status_code == 403


@pytest.mark.parametrize("model", READ_ONLY)
def test_auditor_of_another_laboratory_finds_nothing(
    model: str, sign_in: SignIn, stranger: User, rows: dict[str, Any]
) -> None:
    User.objects.filter(pk=stranger.pk).update(role="auditor")
    stranger.refresh_from_db()
    pk = rows[model].pk
    client = sign_in(stranger)

    listed = client.get(list_url(model)).content.decode()
    assert str(pk) not in listed
    assert rows["classifier.case"].accession_number not in listed
    detail = client.get(reverse(f"admin:{model.replace('.', '_')}_change", args=[pk]))
    assert detail.status_code == 404


def test_administrator_makes_a_user_of_the_own_laboratory(sign_in: SignIn, lab_admin: User) -> None:
    fields = {
        "email": "new@north.example",
        "full_name": "New Person",
        "role": "reader",
        "usable_password": "true",
        "password1": "correct horse battery",
        "password2": "correct horse battery",
    }

    sign_in(lab_admin).post(reverse("admin:accounts_user_add"), fields)

    user = User.objects.get(email="new@north.example")
    assert (user.laboratory, user.role) == (lab_admin.laboratory, "reader")
    assert user.check_password("correct horse battery")
    event = AuditEvent.objects.get(action="user_created")
    assert (event.actor, event.target_id) == (lab_admin, str(user.pk))


def test_administrator_switches_a_user_off_and_the_trail_names_the_field(
    sign_in: SignIn, lab_admin: User, technologist: User
) -> None:
    fields = {"email": technologist.email, "full_name": technologist.full_name, "role": technologist.role}

    sign_in(lab_admin).post(reverse("admin:accounts_user_change", args=[technologist.pk]), fields)

    technologist.refresh_from_db()
    assert not technologist.is_active
    assert AuditEvent.objects.get(action="user_changed").facts == {"fields": ["is_active"]}


def test_changed_address_drops_the_copy_that_signs_in(sign_in: SignIn, lab_admin: User, technologist: User) -> None:
    EmailAddress.objects.create(user=technologist, email=technologist.email, primary=True)
    fields = {"email": "Moved@north.example", "full_name": "Tess", "role": technologist.role, "is_active": "on"}

    sign_in(lab_admin).post(reverse("admin:accounts_user_change", args=[technologist.pk]), fields)

    technologist.refresh_from_db()
    assert technologist.email == "moved@north.example"
    assert not EmailAddress.objects.filter(user=technologist).exists()


@pytest.mark.parametrize("change", [{"role": "reader"}, {"is_active": ""}])
def test_administrator_keeps_the_own_role_and_account(change: dict[str, str], sign_in: SignIn, lab_admin: User) -> None:
    fields = {"email": lab_admin.email, "full_name": "Ada", "role": "admin", "is_active": "on", **change}

    page = sign_in(lab_admin).post(reverse("admin:accounts_user_change", args=[lab_admin.pk]), fields)

    assert "Ask another administrator." in page.content.decode()
    lab_admin.refresh_from_db()
    assert (lab_admin.role, lab_admin.is_active, lab_admin.full_name) == ("admin", True, "Ada Adler")


def test_administrator_changes_the_own_name(sign_in: SignIn, lab_admin: User) -> None:
    fields = {"email": lab_admin.email, "full_name": "Ada A.", "role": "admin", "is_active": "on"}

    sign_in(lab_admin).post(reverse("admin:accounts_user_change", args=[lab_admin.pk]), fields)

    assert User.objects.get(pk=lab_admin.pk).full_name == "Ada A."


NEW_PASSWORD = {"usable_password": "true", "password1": "another horse battery", "password2": "another horse battery"}


def test_password_set_by_the_administrator_ends_sessions_and_tokens_and_is_in_the_trail(
    sign_in: SignIn, lab_admin: User, technologist: User
) -> None:
    client = sign_in(technologist)
    create_token(user=technologist, name="old")

    url = reverse("admin:auth_user_password_change", args=[technologist.pk])
    page = sign_in(lab_admin).post(url, NEW_PASSWORD, follow=True)

    assert "API tokens revoked: 1." in page.content.decode()
    technologist.refresh_from_db()
    assert technologist.check_password("another horse battery")
    assert client.get(reverse("home")).status_code == 302
    assert not ApiToken.objects.exists()
    for action in ("password_set", "token_revoked"):
        event = AuditEvent.objects.get(action=action)
        assert (event.actor, event.target_id) == (lab_admin, str(technologist.pk))


def test_password_that_is_refused_changes_nothing(sign_in: SignIn, lab_admin: User, technologist: User) -> None:
    create_token(user=technologist)
    url = reverse("admin:auth_user_password_change", args=[technologist.pk])

    sign_in(lab_admin).post(url, {**NEW_PASSWORD, "password2": "something else"})

    technologist.refresh_from_db()
    assert technologist.check_password(PASSWORD)
    assert ApiToken.objects.exists()
    assert not AuditEvent.objects.filter(action="password_set").exists()


def test_own_password_has_one_page_that_asks_for_the_old_one(sign_in: SignIn, lab_admin: User) -> None:
    client = sign_in(lab_admin)
    fields = {"old_password": PASSWORD, "new_password1": "another horse", "new_password2": "another horse"}

    for url in (
        reverse("admin:password_change"),
        reverse("admin:auth_user_password_change", args=[lab_admin.pk]),
    ):
        assert client.get(url)["Location"] == reverse("account_change_password")
        assert client.post(url, {**fields, **NEW_PASSWORD})["Location"] == reverse("account_change_password")
    assert User.objects.get(pk=lab_admin.pk).check_password(PASSWORD)


def test_administrator_revokes_a_token(sign_in: SignIn, lab_admin: User, technologist: User, stranger: User) -> None:
    for user in (technologist, stranger):
        create_token(user=user, name="lost")
    chosen = {"action": "revoke", "_selected_action": [token.pk for token in ApiToken.objects.all()]}

    page = sign_in(lab_admin).post(list_url("accounts.apitoken"), chosen, follow=True)

    assert "API tokens revoked: 1." in page.content.decode()
    assert ApiToken.objects.get().user == stranger
    event = AuditEvent.objects.get(action="token_revoked")
    assert (event.actor, event.target_id) == (lab_admin, str(technologist.pk))


def test_operator_makes_and_renames_a_laboratory_and_its_trail_says_so(sign_in: SignIn, operator: User) -> None:
    client = sign_in(operator)

    client.post(reverse("admin:accounts_laboratory_add"), {"name": "Eastside"})
    laboratory = Laboratory.objects.get()
    client.post(reverse("admin:accounts_laboratory_change", args=[laboratory.pk]), {"name": "Westside"})

    assert Laboratory.objects.get().name == "Westside"
    for action in ("laboratory_created", "laboratory_changed"):
        event = AuditEvent.objects.get(action=action)
        assert (event.actor, event.laboratory, event.facts) == (operator, laboratory, {"fields": ["name"]})


def test_operator_reads_the_events_that_belong_to_no_laboratory_and_no_others(
    sign_in: SignIn, operator: User, technologist: User, auditor: User
) -> None:
    ours = audit.record(action="case_opened", actor=technologist)
    nobodys = audit.record(action="sign_in_failed", actor=None, known=False)

    for reader, visible, hidden in ((operator, nobodys, ours), (auditor, ours, nobodys)):
        client = sign_in(reader)
        page = client.get(list_url("accounts.auditevent")).content.decode()
        assert str(visible.pk) in page
        assert str(hidden.pk) not in page
        assert client.get(reverse("admin:accounts_auditevent_change", args=[visible.pk])).status_code == 200
        assert client.get(reverse("admin:accounts_auditevent_change", args=[hidden.pk])).status_code == 404


def test_search_box_that_writes_into_the_address_is_for_staff_only() -> None:
    """The admin searches by GET: what is typed there ends up in the URL, so it must not be patient text."""
    searchable = {
        model._meta.label_lower: tuple(page.search_fields)
        for model, page in admin.site._registry.items()
        if page.search_fields
    }
    ids = ("target_id", "request_id")
    assert searchable == {"accounts.user": ("email", "full_name"), "accounts.auditevent": ids}


@pytest.mark.parametrize("row", ["zz", "1", "99999999999999999999", "7fd86fc6-a780-4a0e-b444-390b792b0e91"])
def test_view_on_site_leads_nowhere(row: str, sign_in: SignIn, auditor: User) -> None:
    client = sign_in(auditor)

    for kind in ("zz", "99999999999999999999", ContentType.objects.get_for_model(User).pk):
        assert client.get(f"/admin/r/{kind}/{row}/").status_code == 404


def test_administrator_reaches_no_user_of_another_laboratory(sign_in: SignIn, lab_admin: User, stranger: User) -> None:
    client = sign_in(lab_admin)

    assert stranger.email not in client.get(list_url("accounts.user")).content.decode()
    assert client.get(reverse("admin:accounts_user_change", args=[stranger.pk])).status_code == 404
    assert client.get(reverse("admin:auth_user_password_change", args=[stranger.pk])).status_code in {302, 404}


def test_operator_activates_another_model_and_the_trail_says_so(
    sign_in: SignIn, operator: User, model_version: ModelVersion, settings: Any, tmp_path: Path
) -> None:
    settings.MODEL_BUNDLES = tmp_path
    (tmp_path / "other-2").symlink_to(shipped_bundle())
    other = ModelVersion.objects.create(
        name="other", version="2", sha256=model_version.sha256, labels=["lymphocyte"], preprocessing_version="1"
    )

    sign_in(operator).post(
        list_url("classifier.modelversion"), {"action": "make_active", "_selected_action": [str(other.pk)]}
    )

    assert ModelVersion.objects.get(active=True) == other
    event = AuditEvent.objects.filter(action="model_activated").latest("at")
    assert event.facts == {"replaced": str(model_version.pk)}


def test_model_whose_files_are_missing_is_refused_with_a_sentence(
    sign_in: SignIn, operator: User, model_version: ModelVersion
) -> None:
    other = ModelVersion.objects.create(
        name="other", version="2", sha256="0" * 64, labels=["lymphocyte"], preprocessing_version="1"
    )
    chosen = {"action": "make_active", "_selected_action": [str(other.pk)]}

    page = sign_in(operator).post(list_url("classifier.modelversion"), chosen, follow=True)

    assert "2 was not activated." in page.content.decode()
    assert ModelVersion.objects.get(active=True) == model_version


def test_auditor_can_not_activate_a_model(sign_in: SignIn, auditor: User, model_version: ModelVersion) -> None:
    other = ModelVersion.objects.create(
        name="other", version="2", sha256="0" * 64, labels=["lymphocyte"], preprocessing_version="1"
    )

    sign_in(auditor).post(
        list_url("classifier.modelversion"), {"action": "make_active", "_selected_action": [str(other.pk)]}
    )

    assert ModelVersion.objects.get(active=True) == model_version


def test_list_of_images_tells_how_the_queue_stands(sign_in: SignIn, auditor: User, make_image: MakeImage) -> None:
    make_image()
    make_image("failed")

    page = sign_in(auditor).get(list_url("classifier.cellimage")).content.decode()

    assert "1 queued, 1 failed" in page
    assert "1 waiting" in page
