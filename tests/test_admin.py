"""The audit desk: what each role finds there, and that nobody edits a fact."""

from collections.abc import Callable

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEvent, User
from classifier.models import CellImage, ModelVersion
from tests.factories import prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
MODELS = sorted(model._meta.label_lower for model in admin.site._registry)
VISIBLE = {
    "auditor": {
        "accounts.auditevent", "accounts.user", "classifier.case", "classifier.cellimage", "classifier.modelversion",
        "classifier.prediction", "classifier.workerheartbeat",
    },
    "lab_admin": {"accounts.user", "accounts.apitoken", "accounts.laboratory"},
    "operator": {"accounts.laboratory", "classifier.modelversion", "classifier.workerheartbeat"},
}  # fmt: skip


def list_url(model: str) -> str:
    return reverse("admin:" + model.replace(".", "_") + "_changelist")


def test_desk_holds_what_was_agreed() -> None:
    assert set(MODELS) == set().union(*VISIBLE.values())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("actor", ["technologist", "reader", "auditor", "lab_admin", "operator"])
def test_each_role_opens_its_own_lists_only(
    actor: str, model: str, sign_in: SignIn, request: pytest.FixtureRequest, model_version: ModelVersion
) -> None:
    response = sign_in(request.getfixturevalue(actor)).get(list_url(model))

    if actor in {"technologist", "reader"}:
        assert response.status_code in {302, 403}
    else:
        assert response.status_code == (200 if model in VISIBLE[actor] else 403)


@pytest.mark.parametrize(
    "model", ["classifier.case", "classifier.cellimage", "classifier.prediction", "accounts.auditevent"]
)
def test_auditor_reads_every_detail_and_changes_none(
    model: str, sign_in: SignIn, auditor: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    image = make_image("classified")
    rows = {
        "classifier.case": image.case,
        "classifier.cellimage": image,
        "classifier.prediction": prediction_of(image, model_version),
        "accounts.auditevent": AuditEvent.objects.filter(laboratory=auditor.laboratory).first(),
    }
    row = rows[model]
    assert row
    client, name = sign_in(auditor), model.replace(".", "_")
    change = reverse(f"admin:{name}_change", args=[row.pk])

    assert client.get(change).status_code == 200
    assert client.post(change, {"status": "failed"}).status_code == 403
    assert client.post(reverse(f"admin:{name}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    assert client.get(reverse(f"admin:{name}_add")).status_code == 403


@pytest.mark.parametrize(
    "model", ["classifier.case", "classifier.cellimage", "classifier.prediction", "accounts.auditevent"]
)
def test_auditor_of_another_laboratory_finds_nothing(
    model: str, sign_in: SignIn, stranger: User, make_image: MakeImage, model_version: ModelVersion
) -> None:
    User.objects.filter(pk=stranger.pk).update(role="auditor")
    stranger.refresh_from_db()
    image = make_image("classified")
    prediction = prediction_of(image, model_version)
    event = AuditEvent.objects.filter(laboratory=image.case.laboratory).first()
    pk = {
        "classifier.case": image.case_id,
        "classifier.cellimage": image.pk,
        "classifier.prediction": prediction.pk,
        "accounts.auditevent": event.pk if event else None,
    }[model]
    client = sign_in(stranger)

    listed = client.get(list_url(model)).content.decode()
    assert str(pk) not in listed
    assert image.case.accession_number not in listed
    detail = client.get(reverse(f"admin:{model.replace('.', '_')}_change", args=[pk]))
    assert detail.status_code == 302


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


def test_administrator_reaches_no_user_of_another_laboratory(sign_in: SignIn, lab_admin: User, stranger: User) -> None:
    client = sign_in(lab_admin)

    assert stranger.email not in client.get(list_url("accounts.user")).content.decode()
    assert client.get(reverse("admin:accounts_user_change", args=[stranger.pk])).status_code == 302
    assert client.get(reverse("admin:auth_user_password_change", args=[stranger.pk])).status_code in {302, 404}


def test_operator_activates_another_model_and_the_trail_says_so(
    sign_in: SignIn, operator: User, model_version: ModelVersion
) -> None:
    other = ModelVersion.objects.create(
        name="other", version="2", sha256="0" * 64, labels=["lymphocyte"], preprocessing_version="1"
    )

    sign_in(operator).post(
        list_url("classifier.modelversion"), {"action": "make_active", "_selected_action": [str(other.pk)]}
    )

    assert ModelVersion.objects.get(active=True) == other
    event = AuditEvent.objects.filter(action="model_activated").latest("at")
    assert event.facts == {"replaced": str(model_version.pk)}


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

    assert "1 failed, 1 queued" in page
    assert "1 waiting" in page
