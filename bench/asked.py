"""What is asked of an instance with a history: every page and list, the API, and the queries of the machine's work.

`questions()` gives by name a function that asks once, and raises where the answer is not the one that was meant.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from html import unescape
from types import MappingProxyType
from typing import Any

from django.contrib import admin
from django.db import transaction
from django.test import Client
from django.utils import timezone

from accounts import seals
from accounts.models import AuditEvent, AuditSeal, User
from accounts.tokens import create_token
from classifier import batch_steps, exports, thumbnails
from classifier.admin.desk import DeskAdmin
from classifier.claims import claim_batch
from classifier.models import Batch, Case, CellImage, Export, ExportKind, ModelVersion, Notification, Report
from classifier.pipeline import fail_lost
from classifier.querysets import CellImageQuerySet
from classifier.retention import due_pictures
from classifier.services.notifications import notifications_of

Ask = Callable[[], object]
OPERATOR = "operator@bench.example"
# Choices of a filter of the audit desk that are asked for.
CHOICES = 3
LINKS = 40
FINE = (200, 302, 304)


def person(role: str) -> User:
    return User.objects.select_related("laboratory").get(email=f"{role}@demo.example")


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def get(
    client: Client, path: str, fine: tuple[int, ...] = FINE, headers: Mapping[str, str] = MappingProxyType({})
) -> Ask:
    def ask() -> bytes:
        answer = client.get(path, headers=dict(headers))
        if answer.status_code not in fine:
            message = f"{path} answers {answer.status_code}"
            raise RuntimeError(message)
        return b"" if answer.streaming else answer.content

    return ask


def search(client: Client, text: str) -> Ask:
    def ask() -> bytes:
        answer = client.post("/cases/search/", {"accession_number": text})
        assert answer.status_code in FINE
        return answer.content

    return ask


def undone(work: Callable[[], object]) -> Ask:
    """What the machine does, and takes back."""

    def ask() -> None:
        with transaction.atomic():
            work()
            transaction.set_rollback(True)

    return ask


def questions() -> dict[str, Ask]:
    found: dict[str, Ask] = {}
    for part in (pages, desk, desk_lists, operators, api, machine):
        found.update(part())
    return found


def newest(laboratory: Any, **of: Any) -> Case:
    case = Case.objects.filter(laboratory=laboratory, **of).order_by("-opened_at", "-id").first()
    assert case is not None
    return case


def pages() -> Iterator[tuple[str, Ask]]:
    reader, administrator = person("reader"), person("admin")
    client, uploader = signed_in(reader), signed_in(person("technologist"))
    case, read, signed = (newest(reader.laboratory, status=status) for status in ("open", "in_review", "released"))
    image = CellImage.objects.filter(case=signed, status="reviewed").order_by("pk").first()
    assert image is not None
    today = timezone.localdate()
    version = ModelVersion.objects.get(active=True)
    yield "home, reader", get(client, "/")
    yield "home, technologist", get(uploader, "/")
    yield "queue line", get(client, "/queue/")
    for query in (
        "", "status=unread", "status=open", "status=in_review", "status=released", "status=void", "order=waiting",
        "cell_type=neutrophil", "cell_type=basophil", "cell_type=myelocyte", "cell_type=neutrophil&status=released",
        "confidence_below=60", "confidence_below=50.1", "cell_type=basophil&confidence_below=60",
        f"model={version.pk}", f"model={version.pk}&cell_type=myelocyte", "unidentified=yes", f"reviewer={reader.pk}",
        f"reviewer={reader.pk}&cell_type=myelocyte", "assigned=me", "assigned=nobody", f"assigned={reader.pk}",
        f"opened_from={today - timedelta(days=1)}", f"opened_to={today - timedelta(days=1)}",
    ):  # fmt: skip
        yield f"worklist ?{shown(query)}", get(client, f"/cases/?{query}")
    yield "search, number", search(client, signed.accession_number)
    yield "search, first letters", search(client, signed.accession_number[:3])
    yield "search, pseudonym", search(client, signed.patient_pseudonym)
    yield "search, nothing", search(client, "there is no such")
    for name, each in (("open", case), ("in review", read), ("signed", signed)):
        yield f"case page, {name}", get(client, f"/cases/{each.pk}/")
        yield f"differential, {name}", get(client, f"/cases/{each.pk}/differential/")
    yield "case, changes", get(client, f"/cases/{read.pk}/changes/?since=0-0-0", headers={"X-Fragment": "1"})
    yield "case, forms", get(client, f"/cases/{read.pk}/edit/")
    yield "release page", get(client, f"/cases/{read.pk}/release/")
    yield "report page", get(client, f"/cases/{signed.pk}/reports/1/")
    yield "reports of a case", get(client, f"/cases/{signed.pk}/reports/")
    yield "hold page", get(client, f"/cases/{signed.pk}/hold/")
    yield "trial page", get(client, f"/cases/{signed.pk}/trial/")
    yield "images", get(client, "/images/")
    yield "images, older", get(client, older(client, "/images/"))
    yield "image page", get(client, f"/images/{image.pk}/")
    yield "image panel", get(client, f"/images/{image.pk}/", headers={"X-Fragment": "side"})
    yield (
        "thumbnail, known",
        get(client, f"/images/{image.pk}/thumbnail/", headers={"If-None-Match": thumbnails.etag_of(image)}),
    )
    yield "batches", get(client, "/batches/")
    batch = Batch.objects.filter(laboratory=reader.laboratory).order_by("-submitted_at").first()
    assert batch is not None
    yield "batch page", get(client, f"/batches/{batch.pk}/")
    yield "notifications", get(client, "/notifications/")
    yield "models", get(client, "/models/")
    yield "model page", get(client, f"/models/{version.pk}/")
    yield "trials", get(client, "/trials/")
    yield "laboratory page", get(client, "/laboratory/")
    yield "re-reads", get(client, "/rereads/")
    keeper = signed_in(administrator)
    yield "retention page", get(keeper, "/laboratory/retention/")
    yield "webhooks", get(keeper, "/webhooks/")
    yield "emergency page", get(keeper, "/emergency/")
    yield "people", get(keeper, "/accounts/people/")
    yield "tokens", get(keeper, "/accounts/tokens/")
    yield "account", get(keeper, "/accounts/")
    yield "sessions", get(keeper, "/accounts/sessions/")


def shown(query: str) -> str:
    """A query without ids and days, which are other ones in each instance."""
    return re.sub(r"=(\d{4}-\d\d-\d\d|[0-9a-f]{8}-[-0-9a-f]{27})", "=...", query)


def older(client: Client, path: str) -> str:
    page = get(client, path)()
    assert isinstance(page, bytes)
    link = re.search(r'href="(\?cursor=[^"]+)"', page.decode())
    assert link is not None
    return path + unescape(link[1])


def desk() -> Iterator[tuple[str, Ask]]:
    auditor = person("auditor")
    client = signed_in(auditor)
    yield "desk", get(client, "/admin/")
    yield "desk, 90 days", get(client, "/admin/?days=90")
    page = get(client, "/admin/")()
    assert isinstance(page, bytes)
    links = [unescape(link) for link in re.findall(r'href="(/admin/[^"]+\?[^"]+)"', page.decode())]
    met: dict[str, str] = {}
    for link in links:
        met.setdefault(shown(link.removeprefix("/admin/")), link)
    for name, link in list(met.items())[:LINKS]:
        yield f"desk > {name}", get(client, link)
    event = AuditEvent.objects.filter(laboratory=auditor.laboratory, action="image_uploaded").order_by("-at")[50]
    yield "audit event", get(client, f"/admin/accounts/auditevent/{event.pk}/change/")
    for name, text in (("target", event.target_id), ("request", event.request_id), ("event", str(event.pk))):
        yield f"audit trail, search by {name}", get(client, f"/admin/accounts/auditevent/?q={text}")
    for query in ("action=case_voided", "action=image_uploaded", "target_type=case", "target_type=report",
                  f"actor={auditor.pk}", f"actor={person('reader').pk}", "actor=machine"):  # fmt: skip
        yield f"audit trail ?{shown(query)}", get(client, f"/admin/accounts/auditevent/?{query}")
    yield "exports", get(client, "/exports/")
    yield "re-reads, auditor", get(client, "/rereads/")


def desk_lists() -> Iterator[tuple[str, Ask]]:
    auditor = person("auditor")
    client = signed_in(auditor)
    for model, model_admin in admin.site._registry.items():
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        yield f"list of {model._meta.verbose_name_plural}", get(client, path, fine=(200, 403))
        if not isinstance(model_admin, DeskAdmin):
            continue
        for each in model_admin.desk_filters:
            for value, _ in each.choices(auditor.laboratory)[: None if each.name == "reading" else CHOICES]:
                query = f"{each.name}={value}"
                yield f"list of {model._meta.verbose_name_plural} ?{shown(query)}", get(client, f"{path}?{query}")
    for query in ("reading=overridden&final=neutrophil", "counts=yes&void=no", "final=promyelocyte", "said=basophil"):
        yield f"list of reviews ?{query}", get(client, f"/admin/classifier/review/?{query}")
    for name in ("cellimage", "case"):
        rows = CellImage.objects.all() if name == "cellimage" else Case.objects.all()
        assert isinstance(rows, CellImageQuerySet) or name == "case"
        row = rows.visible_to(auditor).first()
        assert row is not None
        yield f"desk row of {name}", get(client, f"/admin/classifier/{name}/{row.pk}/change/")


def operators() -> Iterator[tuple[str, Ask]]:
    operator = User.objects.filter(email=OPERATOR).first() or User.objects.create_superuser(OPERATOR, None)
    client = signed_in(operator)
    yield "operator's desk", get(client, "/admin/")
    for model in (
        "accounts/laboratory",
        "accounts/auditevent",
        "classifier/modelversion",
        "classifier/workerheartbeat",
    ):
        yield f"operator's list, {model}", get(client, f"/admin/{model}/")
    yield "metrics", get(Client(), "/metrics")
    yield "readyz", get(Client(), "/readyz", fine=(200, 503))


def api() -> Iterator[tuple[str, Ask]]:
    reader = person("reader")
    client = Client(headers={"Authorization": f"Token {create_token(user=reader)}"})
    signed, case = newest(reader.laboratory, status="released"), newest(reader.laboratory, status="open")
    report = Report.objects.get(case=signed)
    image = CellImage.objects.filter(case=signed, status="reviewed").order_by("pk").first()
    batch = Batch.objects.filter(laboratory=reader.laboratory).first()
    assert image is not None
    assert batch is not None
    today = timezone.localdate()
    for path in (
        "cases/", "cases/?page_size=200", "cases/?status=in_review", "cases/?status=released", "cases/?status=void",
        "cases/?assigned=me", "cases/?assigned=nobody", f"cases/?opened_from={today}", f"cases/?opened_to={today}",
        "images/", "images/?status=queued", "images/?status=classified", "images/?status=reviewed",
        "images/?status=failed", "images/?label=neutrophil", "images/?label=basophil", "images/?label=myelocyte",
        "images/?abstained=true", "images/?abstained=false", "images/?status=classified&abstained=true",
        "batches/", "notifications/", "reviewers/", "models/", "laboratory/settings/",
    ):  # fmt: skip
        yield f"API {shown(path)}", get(client, f"/api/v1/{path}")
    for name, path in (
        ("images of a case", f"images/?case={signed.pk}"),
        ("images of a batch", f"images/?batch={batch.pk}"),
        ("images of a case, by label", f"cases/{signed.pk}/images/?label=neutrophil"),
        ("case", f"cases/{signed.pk}/"),
        ("images in a case", f"cases/{signed.pk}/images/"),
        ("differential", f"cases/{signed.pk}/differential/"),
        ("draft as FHIR", f"cases/{case.pk}/reports/draft/fhir/"),
        ("reports of a case", f"cases/{signed.pk}/reports/"),
        ("image", f"images/{image.pk}/"),
        ("reviews of an image", f"images/{image.pk}/reviews/"),
        ("batch", f"batches/{batch.pk}/"),
        ("report", f"reports/{report.pk}/"),
        ("report as FHIR", f"reports/{report.pk}/fhir/"),
        ("cells of a report", f"reports/{report.pk}/cells/"),
    ):
        yield f"API {name}", get(client, f"/api/v1/{path}", fine=(200, 409))


def machine() -> Iterator[tuple[str, Ask]]:
    """What workers ask while they work, and what the sweeps ask of everything."""
    auditor = person("auditor")
    assert auditor.laboratory_id is not None
    now = timezone.now()
    due = due_pictures(auditor.laboratory_id, 180, now)
    yield "claim of 32", undone(partial(claim_batch, 32))
    yield "sweep of claims", undone(fail_lost)
    yield "ends of batches", undone(batch_steps.finish_batches)
    yield "archives left", undone(lambda: list(Batch.objects.unchecked()[:1]))
    yield "thumbnails missing", thumbnails.without_thumbnail
    yield "pictures due", lambda: list(due.order_by("case_id").values_list("case_id")[:200])
    yield "unread notifications", lambda: notifications_of(auditor).filter(read_at=None).count()
    yield "head of the seals", lambda: AuditSeal.objects.order_by("-number").values_list("number").first()
    yield "age of the unsealed", seals.oldest_unsealed_age
    yield "notifications of a user", lambda: list(Notification.objects.filter(user=auditor)[:25])
    for kind in (ExportKind.PREDICTIONS, ExportKind.REVIEWS, ExportKind.AUDIT_EVENTS):
        export = Export(laboratory=auditor.laboratory, kind=kind, requested_by=auditor, requested_at=now, filters={})
        table = next(each for each in (exports.PREDICTIONS, exports.REVIEWS, exports.AUDIT_EVENTS) if each.kind == kind)
        yield f"export, first rows: {kind}", partial(exports.chunk_after, table, export, None)
