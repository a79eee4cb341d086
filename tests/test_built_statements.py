"""Statements that are built once say and do what Django's own would, and their values are never part of them."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, OperationalError, connection, connections, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import audit, built_statements
from accounts.audit import EVENTS
from accounts.built_statements import BuiltInsert, BuiltSelect, BuiltUpdate, Given, OneOf
from accounts.facts import FactError
from accounts.models import ApiToken, AuditEvent, Laboratory, User
from accounts.roles import Role
from accounts.tokens import TOKEN_OF_DIGEST, create_token
from classifier import active_model, batch_steps, claims, export_steps, pipeline, webhooks, worker_counts
from classifier import visible_case as visible_cases
from classifier.errors import InvalidTransition
from classifier.models import Case, CellImage, ImageStatus, ModelVersion, Prediction, WorkerCounts
from classifier.services import images as image_services
from classifier.services import notifications
from classifier.services.images import add_image
from classifier.transitions import built_move
from classifier.visible_case import visible_case
from tests.factories import prediction_of
from tests.pictures import jpeg_of_cell

MakeImage = Callable[..., CellImage]
CHOSEN = CellImage.objects.filter(OneOf("pk", "images", models.UUIDField()))


def fields_of(row: models.Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_rows_and_objects_are_as_django_reads_them(make_image: MakeImage, django_assert_num_queries: Any) -> None:
    images = [make_image() for _ in range(3)]
    chosen = [image.pk for image in images[:2]]
    objects = BuiltSelect(CHOSEN.order_by("pk"))
    rows = BuiltSelect(CHOSEN.order_by("pk").values_list("pk", "queued_at", F("width") * F("height"), "on_hold"))
    ours = CellImage.objects.filter(pk__in=chosen).order_by("pk")

    with django_assert_num_queries(2):
        found = objects.objects(images=chosen)
        values = rows.rows(images=chosen)

    assert [fields_of(image) for image in found] == [fields_of(image) for image in ours]
    assert not any(image._state.adding for image in found)
    assert [tuple(row) for row in values] == [
        (image.pk, image.queued_at, image.width * image.height, image.on_hold) for image in ours
    ]
    assert objects.objects(images=[]) == []
    assert objects.objects(images=[uuid4()]) == []
    assert len(objects.objects(images=[image.pk for image in images])) == 3


def test_it_is_built_at_its_first_use_and_takes_other_values_at_the_next(
    make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_image(), make_image()
    statement = BuiltSelect(CHOSEN.values_list("pk"))
    assert statement.rows(images=[first.pk])[0][0] == first.pk
    monkeypatch.setattr(statement, "query", None)

    assert statement.rows(images=[second.pk])[0][0] == second.pk
    with pytest.raises(KeyError):
        statement.rows(pictures=[second.pk])


def test_text_is_never_sql(make_image: MakeImage) -> None:
    image = make_image()
    named = BuiltSelect(CellImage.objects.filter(original_name=Given("name", models.CharField())).values_list("pk"))

    for text in ("", "%s", "%(name)s", "' OR 1=1 --", "x'); DELETE FROM classifier_cellimage; --"):
        assert not named.any(name=text)
    assert named.any(name=image.original_name)


def test_update_changes_what_django_would_and_gives_it_back(make_image: MakeImage) -> None:
    mine, other = make_image(), make_image()
    token = uuid4()
    take = built_move(
        CHOSEN,
        source=ImageStatus.QUEUED,
        target=ImageStatus.CLAIMED,
        returning=True,
        claim_token=Given("token", models.UUIDField()),
        claim_expires_at=Now() + Given("seconds", models.DurationField()),
        attempts=F("attempts") + 1,
    )

    [taken] = take.objects(images=[mine.pk], token=token, seconds=timedelta(seconds=60))

    mine.refresh_from_db()
    assert fields_of(taken) == fields_of(mine)
    assert (mine.status, mine.claim_token, mine.attempts) == ("claimed", token, 1)
    assert mine.claim_expires_at is not None
    assert timedelta(seconds=50) < mine.claim_expires_at - timezone.now() < timedelta(seconds=61)
    other.refresh_from_db()
    assert (other.status, other.attempts) == ("queued", 0)
    assert take.objects(images=[mine.pk], token=uuid4(), seconds=timedelta(0)) == [], "it is no longer queued"


def test_built_move_is_one_of_the_table() -> None:
    with pytest.raises(InvalidTransition):
        built_move(CellImage.objects.all(), source=ImageStatus.QUEUED, target=ImageStatus.REVIEWED)


def test_update_of_json_says_how_many_rows_it_changed(db: None) -> None:
    WorkerCounts.objects.create(slot=3, totals={"a": 1})
    rows = WorkerCounts.objects.filter(slot=Given("slot", models.PositiveSmallIntegerField()))
    keep = BuiltUpdate(rows, totals=Given("totals", models.JSONField()))

    assert keep.update(slot=3, totals={"a|'%s": 2.5}) == 1
    assert keep.update(slot=4, totals={}) == 0
    assert WorkerCounts.objects.get().totals == {"a|'%s": 2.5}


def test_insert_writes_what_bulk_create_does(make_image: MakeImage, model_version: ModelVersion) -> None:
    images = [make_image("classified") for _ in range(3)]
    example = prediction_of(images[0], model_version)
    rows = [Prediction(**{**values_of(example), "image": image, "id": uuid4()}) for image in images[1:]]
    insert = BuiltInsert(Prediction)

    with CaptureQueriesContext(connection) as asked:
        insert.insert(*rows)
        insert.insert()

    assert len(asked) == 1
    assert [row._state.adding for row in rows] == [False, False]
    for row in rows:
        stored = Prediction.objects.get(pk=row.pk)
        assert stored.laboratory_id == row.image.laboratory_id
        unlike = {"id", "image_id", "created_at"}
        ours, theirs = fields_of(stored), fields_of(example)
        assert {name: ours[name] for name in ours if name not in unlike} == {
            name: theirs[name] for name in theirs if name not in unlike
        }
        assert timezone.now() - stored.created_at < timedelta(minutes=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        insert.insert(Prediction(**{**values_of(example), "id": uuid4()}))


def values_of(prediction: Prediction) -> dict[str, Any]:
    return {name: value for name, value in fields_of(prediction).items() if name != "image_id"} | {
        "image": prediction.image
    }


def test_values_that_are_the_same_each_time_are_part_of_the_text(make_image: MakeImage) -> None:
    odd = "100 %s of 'it' %% \\ \u2713"
    image = make_image()
    CellImage.objects.filter(pk=image.pk).update(original_name=odd)
    statement = BuiltSelect(CHOSEN.filter(original_name=odd, on_hold=False).exclude(width__in=[1, 2]).values_list("pk"))

    assert [row[0] for row in statement.rows(images=[image.pk])] == [image.pk]
    if connection.vendor == "postgresql":
        assert len(statement.built().parameters) == 1, "or a plan could use no partial index"


def test_rows_of_several_statements_are_written_all_or_none(
    technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built_statements, "MOST_ROWS", 2)
    events = [audit.event(action="signed_in", actor=technologist, number=n) for n in range(5)]
    twin = AuditEvent(**fields_of(events[0]))

    with pytest.raises(IntegrityError), transaction.atomic():
        EVENTS.insert(*events[:4], twin)
    assert not AuditEvent.objects.filter(action="signed_in").exists()
    assert twin._state.adding
    EVENTS.insert(*events)

    assert sorted(event.facts["number"] for event in AuditEvent.objects.filter(action="signed_in")) == [0, 1, 2, 3, 4]


def test_statement_is_shown_with_its_values(case: Case, technologist: User) -> None:
    with CaptureQueriesContext(connection) as asked:
        visible_case(technologist, case.pk)
        audit.record(action="signed_in", actor=technologist)

    select, insert = (each["sql"] for each in asked.captured_queries)
    assert select.startswith("SELECT")
    assert str(case.pk) in select or case.pk.hex in select
    assert insert.startswith("INSERT")
    assert "signed_in" in insert


def test_every_statement_may_be_asked_again_and_again(case: Case, technologist: User) -> None:
    """PostgreSQL keeps each after a few times, and how it is answered after a few more: with no values in sight."""
    images = {"images": [uuid4()]}
    token = {"token": uuid4()}
    selects: list[tuple[BuiltSelect[Any], dict[str, Any]]] = [
        (TOKEN_OF_DIGEST, {"digest": "x"}),
        (visible_cases.CASE_OF_LABORATORY, {"laboratory": case.laboratory_id, "case": case.pk}),
        (image_services.SAME_PICTURE, {"case": case.pk, "pixels": "0" * 64}),
        (claims.ANY_WAITING, {}),
        (claims.ANY_INTERACTIVE, {}),
        (claims.next_waiting(32), {}),
        (pipeline.STILL_HELD, {**images, **token}),
        (pipeline.THEIR_PREDICTIONS, images),
        (active_model.ACTIVE, {}),
        (batch_steps.ANY_OPEN, {}),
        (export_steps.ANY_UNFINISHED, {}),
        (webhooks.ACTIVE_ENDPOINTS, {}),
        (worker_counts.LOCK_TOTALS, {"slot": 3}),
        (notifications.DONE, {"cases": {case.pk}}),
        (notifications.MANY, {"cases": {case.pk}, "people": {technologist.pk}, "recent": timezone.now()}),
    ]
    updates: list[tuple[BuiltUpdate[Any], dict[str, Any]]] = [
        (claims.TAKE, {**images, **token, "seconds": timedelta(seconds=60), "alone": False}),
        (pipeline.COMPLETE, {**images, **token, "drawn": []}),
        (worker_counts.KEEP_TOTALS, {"slot": 3, "totals": {"a": 1}}),
    ]
    for _ in range(10):
        for select, given in selects:
            select.rows(**given)
        for update, given in updates:
            assert update.update(**given) == 0

    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), min(generic_plans) FROM pg_prepared_statements")
            prepared, without_values = cursor.fetchone()
        assert prepared >= sum(select.kept for select, _ in selects) + len(updates)
        assert without_values >= 1


@pytest.mark.django_db(transaction=True)
def test_each_thread_asks_over_its_own_connection(make_image: MakeImage) -> None:
    image = make_image()
    statement = BuiltSelect(CHOSEN.values_list("pk"))
    assert statement.any(images=[image.pk])
    found: list[UUID] = []

    def ask() -> None:
        try:
            found.extend(row[0] for row in statement.rows(images=[image.pk]))
        finally:
            connections.close_all()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert found == [image.pk]


@pytest.mark.django_db(transaction=True)
def test_connection_that_ended_is_opened_anew_and_a_server_that_is_away_is_an_error_of_the_database(
    technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TOKEN_OF_DIGEST.one(digest="x") is None
    if connection.vendor == "sqlite":
        return

    def ended() -> None:
        other = connection.copy()
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])
        finally:
            other.close()
        # As at the beginning of a request.
        connection.close_if_unusable_or_obsolete()

    ended()
    assert TOKEN_OF_DIGEST.one(digest="x") is None
    ended()
    with monkeypatch.context() as patch:
        patch.setattr(connection, "get_new_connection", lambda _: connection.Database.connect("host=/nowhere"))  # type: ignore[attr-defined]
        with pytest.raises(OperationalError):
            TOKEN_OF_DIGEST.one(digest="x")
    assert TOKEN_OF_DIGEST.one(digest="x") is None


def test_completion_of_one_row_of_a_claim_leaves_its_neighbours_claimed(
    make_image: MakeImage, model_version: ModelVersion
) -> None:
    images = [make_image() for _ in range(2)]
    claim = claims.claim_batch(2)
    given = {"token": claim.token, "images": [images[0].pk]}

    with transaction.atomic():
        assert len(pipeline.STILL_HELD.rows(**given)) == 1
        assert pipeline.COMPLETE.update(**given, drawn=[]) == 1

    assert dict(CellImage.objects.values_list("pk", "status")) == {images[0].pk: "classified", images[1].pk: "claimed"}


def test_active_version_is_found_without_its_figures(model_version: ModelVersion) -> None:
    with CaptureQueriesContext(connection) as asked:
        found = active_model.active_version()

    assert [("metrics" in each["sql"], "sha256" in each["sql"]) for each in asked.captured_queries] == [(False, True)]
    assert fields_of(found) == fields_of(ModelVersion.objects.get(pk=model_version.pk))


def test_few_statements_are_asked_for_a_micro_batch(make_image: MakeImage, model_version: ModelVersion) -> None:
    """Each costs every micro-batch: on a quiet system that is every picture."""
    for _ in range(3):
        make_image()
    pipeline.load_model()
    claims.claim_batch(1)

    with CaptureQueriesContext(connection) as asked:
        assert pipeline.classify_next_batch() == 2

    assert len(asked) <= 21, [each["sql"][:80] for each in asked.captured_queries]


# --- Who asks ---------------------------------------------------------------------------------------------------------


def test_token_and_its_owner_are_as_django_reads_them(
    technologist: User, reader: User, django_assert_num_queries: Any
) -> None:
    create_token(user=technologist, name="one", scopes=["read"])
    create_token(user=reader, name="another", lifetime=None)

    for wanted in ApiToken.objects.select_related("user"):
        with django_assert_num_queries(1):
            found = TOKEN_OF_DIGEST.one(digest=wanted.digest)
            assert found is not None
            assert fields_of(found.user) == fields_of(wanted.user)
        assert fields_of(found) == fields_of(wanted)
        assert found == wanted
        assert not found._state.adding


def test_what_is_not_there_is_none_and_a_text_is_never_sql(technologist: User) -> None:
    create_token(user=technologist)

    for text in ("", "' OR 1=1 --", "%s"):
        assert TOKEN_OF_DIGEST.one(digest=text) is None


# --- The case of an upload ----------------------------------------------------------------------------------------


def test_case_is_as_django_reads_it_in_one_statement(
    technologist: User, case: Case, django_assert_num_queries: Any
) -> None:
    assert visible_case(technologist, case.pk)

    with django_assert_num_queries(1):
        found = visible_case(technologist, case.pk)

    assert found is not None
    assert fields_of(found) == fields_of(Case.objects.get(pk=case.pk))


@pytest.mark.parametrize("role", [*Role, ""])
def test_case_is_found_by_those_whom_the_rule_lets_see_it(role: str, technologist: User, case: Case) -> None:
    """Every role, with and without being switched off: the rule's answer, whatever it is."""
    for active in (True, False):
        user = User(role=role, is_active=active, laboratory=technologist.laboratory)
        found = visible_case(user, case.pk)

        assert found == Case.objects.visible_to(user).filter(pk=case.pk).first()


def test_case_of_another_laboratory_is_not_there(stranger: User, case: Case) -> None:
    assert visible_case(stranger, case.pk) is None
    assert visible_case(User(is_superuser=True), case.pk) is None
    assert visible_case(stranger, uuid4()) is None


def test_rule_that_says_more_is_asked_as_it_says_it(
    technologist: User, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stricter(user: User, laboratory: str) -> Q:
        return Q(**{laboratory: user.laboratory_id}) & Q(status="released")

    monkeypatch.setattr(visible_cases, "visible_to", stricter)

    assert visible_case(technologist, case.pk) is None


# --- Rows -----------------------------------------------------------------------------------------------------------


def as_django_writes_it(row: models.Model) -> dict[str, Any]:
    """The columns of a copy of the row, written by `Model.save`."""
    copy = type(row)(**{**fields_of(row), "id": uuid4()})
    copy.save(force_insert=True)
    return columns_of(copy)


def columns_of(row: models.Model) -> dict[str, Any]:
    """What stands in the database, but for the key and the moment of writing."""
    meta = type(row)._meta
    key = meta.pk.get_db_prep_value(row.pk, connection)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {meta.db_table} WHERE id = %s", [key])
        names = [column[0] for column in cursor.description]
        values = cursor.fetchone()
    return {name: value for name, value in zip(names, values, strict=True) if name not in {"id", "at", "uploaded_at"}}


@pytest.mark.parametrize("facts", [{}, {"fields": ["a", "b"], "text": "100 % \u2713 'quoted'"}])
def test_event_is_written_as_django_writes_it(facts: dict[str, Any], technologist: User, case: Case) -> None:
    for _ in range(2):
        written = audit.record(action="image_uploaded", actor=technologist, target=case, **facts)

    assert columns_of(written) == as_django_writes_it(written)
    assert abs(AuditEvent.objects.get(pk=written.pk).at - timezone.now()) < timedelta(minutes=1)
    assert fields_of(AuditEvent.objects.get(pk=written.pk)) == fields_of(written)


def test_event_that_was_written_is_a_fact(technologist: User) -> None:
    written = audit.record(action="signed_in", actor=technologist)

    with pytest.raises(FactError, match="AuditEvent is a fact"):
        written.save()
    with pytest.raises(FactError, match="AuditEvent is a fact"):
        EVENTS.insert(written)
    # It was refused before the database was asked: the transaction goes on.
    fresh = audit.event(action="signed_out", actor=technologist)
    with pytest.raises(FactError):
        EVENTS.insert(fresh, written)
    assert fresh._state.adding
    assert list(AuditEvent.objects.values_list("action", flat=True)) == ["signed_in"]


def test_image_is_written_as_django_writes_it(
    technologist: User, case: Case, as_upload: Callable[..., SimpleUploadedFile]
) -> None:
    for seed in (1, 2):
        written, _ = add_image(actor=technologist, case=case, upload=as_upload(jpeg_of_cell(seed)))
    columns = columns_of(written)
    # The same picture may come again in a case once it is cancelled: here as the copy.
    CellImage.objects.filter(pk=written.pk).update(cancelled=True)

    assert as_django_writes_it(written) == columns
    stored = CellImage.objects.get(pk=written.pk)
    assert fields_of(stored) == {**fields_of(written), "cancelled": True}
    assert not written._state.adding


def test_row_that_the_database_refuses_ends_its_transaction(technologist: User, case: Case) -> None:
    event = audit.record(action="signed_in", actor=technologist)
    twin = AuditEvent(**fields_of(event))

    with transaction.atomic():
        with pytest.raises(IntegrityError):
            EVENTS.insert(twin)
        assert connection.needs_rollback
        transaction.set_rollback(True)
    assert twin._state.adding


def test_row_without_a_key_of_its_own_is_refused() -> None:
    laboratory = Laboratory(pk=None, name="north")

    with pytest.raises(ValueError, match="its key among them"):
        BuiltInsert(Laboratory).insert(laboratory)
