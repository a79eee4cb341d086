"""The audit desk's first page: its figures are those of the lists behind them, and of the own laboratory only."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.audit import record
from accounts.models import AuditEvent, Laboratory, User
from accounts.roles import Role
from classifier import services
from classifier.admin.desk import DeskAdmin, readable
from classifier.audit_desk import (
    abstentions_and_periods,
    agreement_of,
    failures_by_code,
    images_per_status,
    queue_health,
    window_of,
)
from classifier.binomial import limits
from classifier.desk_days import Window, days_of
from classifier.models import Case, CellImage, ModelVersion, Prediction, WorkerHeartbeat
from tests.conftest import person
from tests.factories import image_in_state, prediction_of

SignIn = Callable[[User], Client]
MakeImage = Callable[..., CellImage]
Read = Callable[..., Prediction]


@pytest.fixture
def today() -> Window:
    return Window(timezone.localdate(), timezone.localdate())


@pytest.fixture
def read(make_image: MakeImage, model_version: ModelVersion, reader: User) -> Read:
    """A prediction and its review: the model said one thing (nothing: it abstained), a reader another."""

    def make(said: str, final: str, *, by: User = reader, version: ModelVersion = model_version) -> Prediction:
        image = make_image("classified")
        about = {"label": said} if said else {"label": "", "abstained": True, "reason": "?", "reason_code": "not_sure"}
        prediction = prediction_of(image, version, **about)
        if final:
            verdict = "CONFIRMED" if said == final else "CORRECTED"
            services.review_image(actor=by, image=image, verdict=verdict, final_label="" if said == final else final)
        return prediction

    return make


def test_agreement_counts_what_readers_said_of_each_class(
    read: Read, laboratory: Laboratory, today: Window, model_version: ModelVersion, reader: User, technologist: User
) -> None:
    for _ in range(3):
        read("lymphocyte", "lymphocyte")
    read("lymphocyte", "monocyte", by=technologist)
    read("neutrophil", "neutrophil")
    read("", "monocyte")
    read("neutrophil", "")

    (agreement,), readers = agreement_of(days_of(laboratory, today))

    assert agreement.version == model_version
    assert (agreement.counted.n, agreement.counted.agreed, agreement.identified) == (5, 4, 1)
    by_class = {line.slug: line.counted for line in agreement.classes}
    assert (by_class["lymphocyte"].n, by_class["lymphocyte"].agreed) == (4, 3)
    assert by_class["lymphocyte"].reach == limits(3, 4)
    assert set(by_class) == {"lymphocyte", "neutrophil"}
    matrix = {row.true: {cell.said: cell.n for cell in row.cells if cell.n} for row in agreement.matrix}
    assert matrix["monocyte"] == {"lymphocyte": 1, "unidentified": 1}
    assert matrix["lymphocyte"] == {"lymphocyte": 3}
    assert [(line.reader, line.counted.n, line.counted.agreed, line.identified) for line in readers] == [
        (reader, 4, 4, 1), (technologist, 1, 0, 0)
    ]  # fmt: skip


def test_agreement_counts_each_image_once_and_no_void_one(
    read: Read, laboratory: Laboratory, today: Window, reader: User
) -> None:
    changed = read("lymphocyte", "monocyte")
    services.review_image(actor=reader, image=changed.image, verdict="CONFIRMED")
    withdrawn = read("lymphocyte", "monocyte")
    services.review_image(actor=reader, image=withdrawn.image, verdict="WITHDRAWN")
    voided = read("lymphocyte", "lymphocyte")
    services.void_image(actor=reader, image=voided.image, reason="another patient")

    (agreement,), _ = agreement_of(days_of(laboratory, today))

    assert (agreement.counted.n, agreement.counted.agreed) == (1, 1)


def test_agreement_tells_model_versions_apart(
    read: Read, laboratory: Laboratory, today: Window, model_version: ModelVersion
) -> None:
    other = ModelVersion.objects.create(
        name="other", version="2", sha256="0" * 64, labels=["lymphocyte", "monocyte"], preprocessing_version="1"
    )
    read("lymphocyte", "lymphocyte")
    read("lymphocyte", "monocyte", version=other)

    found = {line.version: line.counted for line in agreement_of(days_of(laboratory, today))[0]}

    assert (found[model_version].agreed, found[other].agreed) == (1, 0)


def test_case_of_another_laboratory_counts_nowhere(
    read: Read, other_laboratory: Laboratory, today: Window, make_image: MakeImage
) -> None:
    read("lymphocyte", "monocyte")
    make_image("failed")

    assert agreement_of(days_of(other_laboratory, today)) == ([], [])
    assert abstentions_and_periods(days_of(other_laboratory, today)) == ([], [])
    assert images_per_status(other_laboratory) == []
    assert failures_by_code(other_laboratory) == []


def test_abstentions_and_days_are_counted(read: Read, laboratory: Laboratory, today: Window) -> None:
    read("lymphocyte", "lymphocyte")
    read("lymphocyte", "monocyte")
    read("", "monocyte")
    read("", "")

    (abstention,), (day,) = abstentions_and_periods(days_of(laboratory, today))

    assert (abstention.n, abstention.abstained, abstention.reasons) == (4, 2, [("not_sure", 2)])
    assert abstention.reach == limits(2, 4)
    assert (day.first, day.predictions, day.abstained, day.read, day.overridden) == (today.first, 4, 2, 2, 1)


def test_day_of_yesterday_is_not_in_the_figures_of_today(read: Read, laboratory: Laboratory) -> None:
    read("lymphocyte", "lymphocyte")
    yesterday = timezone.localdate() - timedelta(days=1)

    assert agreement_of(days_of(laboratory, Window(yesterday, yesterday))) == ([], [])


@pytest.mark.parametrize(
    ("given", "days"),
    [({}, 30), ({"days": "90"}, 90), ({"days": "5000"}, 30), ({"from": "x", "to": "y"}, 30),
     ({"from": "2026-02-01", "to": "2026-02-10"}, 10), ({"from": "2026-02-10", "to": "2026-02-01"}, 30),
     ({"from": "1900-01-01", "to": "2026-02-01"}, 30)],
)  # fmt: skip
def test_days_of_the_page_come_from_its_address(given: dict[str, str], days: int) -> None:
    assert window_of(given).days == days


def test_long_time_is_shown_by_week(read: Read, laboratory: Laboratory) -> None:
    read("lymphocyte", "lymphocyte")
    last = timezone.localdate()

    _, (week,) = abstentions_and_periods(days_of(laboratory, Window(last - timedelta(days=89), last)))

    assert week.first.weekday() == 0
    assert week.first <= last <= week.last


def test_queue_tells_its_workers_and_its_last_success(make_image: MakeImage, model_version: ModelVersion) -> None:
    make_image()
    done = make_image("classified")
    now = timezone.now()
    WorkerHeartbeat.objects.create(host="a", pid=1, model_sha256=model_version.sha256, seen_at=now)
    WorkerHeartbeat.objects.create(host="a", pid=2, model_code="model_missing", seen_at=now)
    WorkerHeartbeat.objects.create(host="gone", pid=3, seen_at=now - timedelta(hours=1))

    queue = queue_health()

    assert (queue.state.waiting, len(queue.workers), queue.with_model) == (1, 2, 1)
    assert queue.last_success == done.classified_at


# --- The page --------------------------------------------------------------------------------------------------


def links_of(page: str) -> list[tuple[str, int]]:
    """(address, number) of every figure that is a link to a list."""
    found = re.findall(r'<a href="(/admin/classifier/[^"]+\?[^"]*)">[^<]*?([0-9,]+)</a>', page)
    return [(unescape(address), int(number.replace(",", ""))) for address, number in found]


def test_every_figure_leads_to_a_list_with_as_many_rows(
    read: Read, sign_in: SignIn, auditor: User, reader: User, technologist: User, make_image: MakeImage
) -> None:
    for said, final in [("lymphocyte", "lymphocyte")] * 3 + [("lymphocyte", "monocyte"), ("", "monocyte"), ("", "")]:
        read(said, final)
    read("neutrophil", "eosinophil", by=technologist)
    voided = read("lymphocyte", "monocyte")
    services.void_image(actor=reader, image=voided.image, reason="another patient")
    changed = read("lymphocyte", "monocyte")
    services.review_image(actor=reader, image=changed.image, verdict="CONFIRMED")
    make_image("failed")
    make_image("queued")
    client = sign_in(auditor)

    page = client.get(reverse("admin:index")).content.decode()
    links = links_of(page)

    assert len(links) >= 25
    for address, number in dict.fromkeys(links):
        listed = client.get(address)
        assert listed.status_code == 200, address
        assert listed.context["cl"].result_count == number, address


def test_page_of_an_empty_laboratory_says_so(sign_in: SignIn, auditor: User) -> None:
    page = sign_in(auditor).get(reverse("admin:index")).content.decode()

    for sentence in ("No image yet.", "None is failed.", "No prediction on these days.", "No worker is running"):
        assert sentence in page or "No model" in page
    assert "No review of these days" in page


def test_operator_finds_counts_over_all_and_no_patient_data(
    read: Read, sign_in: SignIn, operator: User, reader: User, case: Case, model_version: ModelVersion
) -> None:
    prediction = read("lymphocyte", "lymphocyte")

    page = sign_in(operator).get(reverse("admin:index")).content.decode()

    assert ">1</td>" in page
    assert str(model_version) in page
    private = (case.accession_number, str(case.pk), str(prediction.image_id), str(reader), reader.email, "Northside")
    assert not [text for text in private if text in page]


def test_administrator_finds_the_plain_lists(sign_in: SignIn, lab_admin: User) -> None:
    page = sign_in(lab_admin).get(reverse("admin:index"))

    assert page.status_code == 200
    assert 'class="desk"' not in page.content.decode()


def test_page_takes_as_many_queries_for_many_rows_as_for_few(read: Read, sign_in: SignIn, auditor: User) -> None:
    client = sign_in(auditor)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert client.get(reverse("admin:index")).status_code == 200
        return len(captured)

    read("lymphocyte", "lymphocyte")
    # The first time days are counted that are kept from then on.
    assert queries() < 40
    few = queries()
    for said in ("lymphocyte", "monocyte", "neutrophil", ""):
        read(said, "eosinophil")

    assert queries() == few


# --- The lists -------------------------------------------------------------------------------------------------

DESK = sorted(
    (page for page in admin.site._registry.values() if isinstance(page, DeskAdmin)), key=lambda page: str(page.model)
)


@pytest.mark.parametrize("page", DESK, ids=lambda page: page.model._meta.model_name)
def test_every_filter_of_every_list_works_and_makes_nothing_distinct(
    page: DeskAdmin, sign_in: SignIn, auditor: User, model_version: ModelVersion
) -> None:
    client = sign_in(auditor)
    url = reverse(f"admin:classifier_{page.model._meta.model_name}_changelist")

    for each in page.desk_filters:
        days = {"from": "2026-01-01", "to": "2026-12-31"}
        value = days.get(each.name) or each.choices(auditor.laboratory)[0][0]
        with CaptureQueriesContext(connection) as captured:
            assert client.get(url, {each.name: value}).status_code == 200, each.name
        assert not any("DISTINCT" in query["sql"] for query in captured), each.name
        assert client.get(url, {each.name: "no-such"}).status_code in {200, 302}, each.name


def test_list_is_narrowed_by_its_filters_and_by_nothing_else(sign_in: SignIn, auditor: User) -> None:
    url = reverse("admin:classifier_prediction_changelist")

    for other in ("image__case__accession_number", "image__id__exact", "label__regex", "confidence__gte"):
        assert sign_in(auditor).get(url, {other: "x"}).status_code == 400


def test_list_ends_after_a_thousand_rows_and_counts_them_only_when_asked(
    sign_in: SignIn, auditor: User, technologist: User, case: Case, model_version: ModelVersion
) -> None:
    row = image_in_state("classified", case=case, uploaded_by=technologist)
    images = []
    for _ in range(1005):
        row.pk, row._state.adding, row.pixels_sha256 = uuid4(), True, uuid4().hex
        images.append(CellImage(**{field.attname: getattr(row, field.attname) for field in CellImage._meta.fields}))
    CellImage.objects.bulk_create(images)
    client = sign_in(auditor)
    url = reverse("admin:classifier_cellimage_changelist")

    def page(**query: str) -> str:
        with CaptureQueriesContext(connection) as captured:
            content = client.get(url, query).content.decode()
        asked = [query["sql"] for query in captured if "LIMIT 10001" in query["sql"]]
        assert bool(asked) == ("all" in query)
        return " ".join(content.partition('<p class="paginator">')[2].partition("</p>")[0].split())

    first, last = page(), page(p="20")
    assert "1 to 50 of more than 50 cell images" in first
    assert "?p=2" in first
    assert "?p=3" not in first
    assert "narrow the list" not in first
    assert "951 to 1000 of more than 1000 cell images" in last
    assert "narrow the list" in last
    assert "?p=21" not in last
    assert "Count them" in first
    counted = page(p="2", all="")
    assert "51 to 100 of 1006 cell images" in counted
    assert "all=" not in counted
    for beyond in ("21", "0", "-1"):
        assert client.get(url, {"p": beyond}).status_code == 302


def test_last_page_of_a_list_says_how_long_it_is(
    sign_in: SignIn, auditor: User, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin.site.get_model_admin(CellImage), "list_per_page", 2)
    for _ in range(3):
        make_image("classified")
    client = sign_in(auditor)
    url = reverse("admin:classifier_cellimage_changelist")

    pages = [" ".join(client.get(url, {"p": number}).content.decode().split()) for number in ("1", "2")]

    assert "1 to 2 of more than 2 cell images" in pages[0]
    assert "3 cell images" in pages[1]
    assert "Count them" not in pages[1]
    assert client.get(url, {"p": "3"}).status_code == 302


def test_search_names_no_length_that_nobody_counted(
    sign_in: SignIn, auditor: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin.site.get_model_admin(AuditEvent), "list_per_page", 2)
    for _ in range(3):
        record(actor=auditor, action="case_viewed", target=case)
    client = sign_in(auditor)

    page = client.get(reverse("admin:accounts_auditevent_changelist"), {"q": str(case.pk)}).content.decode()

    assert "1 to 2 of more than 2 audit events" in " ".join(page.split())
    assert "result" not in re.sub(r"<[^>]+>", " ", page.partition('id="changelist-search"')[2].partition("</form>")[0])


def test_list_of_many_rows_takes_as_many_queries_as_one_of_few(read: Read, sign_in: SignIn, auditor: User) -> None:
    client = sign_in(auditor)

    def queries(name: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(reverse(f"admin:classifier_{name}_changelist")).status_code == 200
        return len(captured)

    read("lymphocyte", "monocyte")
    few = {name: queries(name) for name in ("prediction", "review", "cellimage")}
    for _ in range(3):
        read("lymphocyte", "monocyte")
    assert {name: queries(name) for name in few} == few


def test_export_button_carries_the_filters_of_the_list(sign_in: SignIn, auditor: User, operator: User) -> None:
    page = sign_in(auditor).get(reverse("admin:classifier_review_changelist"), {"verdict": "CORRECTED"})

    content = page.content.decode()
    assert '<input type="hidden" name="export_kind" value="reviews">' in content
    assert '<input type="hidden" name="verdict" value="CORRECTED">' in content
    trail = reverse("admin:accounts_auditevent_changelist")
    assert 'value="audit_events"' in sign_in(auditor).get(trail).content.decode()
    assert 'name="export_kind"' not in sign_in(operator).get(trail).content.decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), ([], "-"), (["lymphocyte", "monocyte"], "Lymphocyte, Monocyte"), ([[0.1, 0.2], [0.3, 0.4]],
        "2 rows of 2 values"), (True, "yes"), (0.123456, "0.1235"), ([1, 2], "1, 2"),
        ({"lymphocyte": 0.5}, '<dl class="readable"><dt>Lymphocyte</dt><dd>0.5</dd></dl>'),
        ({"<b>": "<i>"}, '<dl class="readable"><dt>&lt;b&gt;</dt><dd>&lt;i&gt;</dd></dl>'),
        ([{"a": 1}], '<ol class="readable"><li><dl class="readable"><dt>a</dt><dd>1</dd></dl></li></ol>'),
    ],
)  # fmt: skip
def test_json_is_shown_as_lines(value: Any, text: str) -> None:
    assert readable(value) == text


def test_prediction_s_page_shows_its_columns_as_lines(read: Read, sign_in: SignIn, auditor: User) -> None:
    prediction = read("lymphocyte", "lymphocyte")

    page = sign_in(auditor).get(reverse("admin:classifier_prediction_change", args=[prediction.pk])).content.decode()

    assert "<dt>Lymphocyte</dt><dd>0.92</dd>" in page
    assert "2 rows of 2 values" in page
    assert "{&quot;" not in page


def test_people_of_another_laboratory_are_in_no_filter(
    sign_in: SignIn, auditor: User, other_laboratory: Laboratory
) -> None:
    person("olga@south.example", "Olga Olsen", other_laboratory, Role.READER)

    page = sign_in(auditor).get(reverse("admin:classifier_prediction_changelist")).content.decode()

    assert "Arno Abel" in page
    assert "Olga" not in page


def test_window_holds_its_first_and_last_day() -> None:
    assert Window(date(2026, 1, 1), date(2026, 1, 31)).days == 31
