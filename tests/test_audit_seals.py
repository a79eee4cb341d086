"""Sealing the audit trail, and finding whatever was done to it afterwards."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from accounts import audit, audit_heads, seals
from accounts.audit_queue import POSTGRESQL, SQLITE
from accounts.audit_triggers import missing_triggers
from accounts.audit_verification import Outcome, Sum, Verification, one_moment, verify
from accounts.fact_triggers import install_fact_triggers
from accounts.models import AuditEvent, AuditEventToSeal, AuditSeal, User
from accounts.seals import (
    COLUMNS,
    event_sha256,
    oldest_unsealed_age,
    seal_events,
    seal_of,
    stored_events,
    waits_for_seal,
)

EVENTS, SEALS, QUEUE = "accounts_auditevent", "accounts_auditseal", "accounts_auditeventtoseal"


@pytest.fixture(autouse=True)
def heads_file(settings: Any, tmp_path: Path) -> Path:
    settings.AUDIT_HEADS_FILE = tmp_path / "heads.jsonl"
    return tmp_path / "heads.jsonl"


@pytest.fixture
def trail(technologist: User, delete_triggers: None) -> list[AuditEvent]:
    """Nine events under three seals."""
    events = []
    for block in range(3):
        events += [audit.record(action="tested", actor=technologist, number=3 * block + n) for n in range(3)]
        seal_events()
    return events


@contextmanager
def without_triggers() -> Iterator[None]:
    """As somebody with all rights over the database works: past the triggers, which are there again afterwards."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET session_replication_role = replica")
            yield
            cursor.execute("SET session_replication_role = origin")
        else:
            for table in (EVENTS, SEALS):
                for ending in ("never_changed", "never_deleted"):
                    cursor.execute(f"DROP TRIGGER {table}_{ending}")
            cursor.execute("DROP TRIGGER audit_event_waits")
            yield
            for table in (EVENTS, SEALS):
                install_fact_triggers(connection, table)
            cursor.execute(SQLITE[0])


def forge(statement: str, *values: object) -> None:
    """Run plain SQL past the triggers. `values` that are ids are written as the database keeps them."""
    stored = [AuditEvent._meta.pk.get_db_prep_value(value, connection) for value in values]
    with without_triggers(), connection.cursor() as cursor:
        cursor.execute(statement, stored)
        assert cursor.rowcount > 0, "nothing was forged"


def first_of(outcome: Outcome) -> tuple[str, str]:
    assert outcome.exit_code == 1
    return outcome.findings[0].row, outcome.findings[0].sentence


# --- Sealing -----------------------------------------------------------------------------------------------------
def test_every_column_of_an_event_is_hashed() -> None:
    assert {field.attname for field in AuditEvent._meta.concrete_fields} == set(COLUMNS)


def test_events_wait_in_a_queue_until_they_are_sealed(technologist: User) -> None:
    before = AuditEventToSeal.objects.count()
    event = audit.record(action="tested", actor=technologist)
    assert AuditEventToSeal.objects.count() == before + 1
    assert (age := oldest_unsealed_age()) is not None
    assert age < timedelta(minutes=1)
    assert (waits_for_seal(event), seal_of(event)) == (True, None)

    assert seal_events() == before + 1

    seal = AuditSeal.objects.get()
    assert (seal.number, seal.previous_mac) == (1, "")
    assert str(event.pk) in dict(seal.entries)
    assert not AuditEventToSeal.objects.exists()
    assert oldest_unsealed_age() is None
    assert (waits_for_seal(event), seal_of(event)) == (False, 1)


def test_each_seal_follows_the_one_before(trail: list[AuditEvent]) -> None:
    first, second, third = AuditSeal.objects.order_by("number")
    assert (first.number, second.number, third.number) == (1, 2, 3)
    assert (second.previous_mac, third.previous_mac) == (first.mac, second.mac)
    assert [seal_of(event) for event in trail] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert verify().exit_code == 0


@pytest.mark.parametrize("idle", [timedelta(minutes=6), timedelta(days=400)])
def test_event_is_found_in_its_seal_however_long_nobody_sealed(
    idle: timedelta, trail: list[AuditEvent], technologist: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the seal before was made moments before the event, and after an upgrade that brought the seals."""
    event = audit.record(action="tested", actor=technologist)
    monkeypatch.setattr(seals, "BLOCK", 1)
    audit.record(action="tested", actor=technologist)
    late = timezone.now() + idle
    monkeypatch.setattr(timezone, "now", lambda: late)
    seal_events()

    assert seal_of(event) in (4, 5)
    assert verify().exit_code == 0


def test_event_in_no_seal_is_looked_for_in_the_seals_of_a_day(trail: list[AuditEvent], technologist: User) -> None:
    """What comes a day later costs nothing, however much that is."""
    event = audit.record(action="tested", actor=technologist)
    forge(f"DELETE FROM {QUEUE} WHERE event_id = %s", event.pk)
    for number, later in ((4, timedelta(hours=1)), (5, timedelta(hours=24)), (6, timedelta(hours=26))):
        sealed_at = event.at + later
        AuditSeal(number=number, sealed_at=sealed_at, entries=[[str(event.pk), ""]] if number == 6 else []).save()

    assert not waits_for_seal(event)
    assert seal_of(event) is None


def test_heads_that_the_file_lacks_are_read_a_few_at_a_time(
    trail: list[AuditEvent], heads_file: Path, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    heads_file.unlink()
    monkeypatch.setattr(audit_heads, "AT_ONCE", 2)

    with django_assert_num_queries(3):
        audit_heads.append_heads(heads_file)

    assert [json.loads(line)["number"] for line in heads_file.read_text().splitlines()] == [1, 2, 3]


def test_nothing_waits_nothing_is_sealed(trail: list[AuditEvent]) -> None:
    assert seal_events() == 0
    assert AuditSeal.objects.count() == 3


def test_many_events_are_sealed_in_blocks(technologist: User, monkeypatch: pytest.MonkeyPatch) -> None:
    seal_events()
    monkeypatch.setattr(seals, "BLOCK", 4)
    audit.record_many(audit.event(action="tested", actor=technologist, number=n) for n in range(10))

    assert seal_events() == 10
    assert [len(seal.entries) for seal in AuditSeal.objects.order_by("number")][-3:] == [4, 4, 2]
    assert verify().findings == []


def test_many_events_are_recorded_by_one_statement(technologist: User, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        audit.record_many([audit.event(action="tested", actor=technologist, number=n) for n in range(50)])
    assert AuditEvent.objects.filter(action="tested").count() == 50


def test_hash_is_the_same_whatever_database_the_event_lies_in() -> None:
    """PostgreSQL gives 2 for 2.0 and another order of names; addresses are written in several ways."""
    at = timezone.now()
    row: list[Any] = ["id", at, None, None, "tested", "", "", '{"a": 2.0, "b": 1e22}', "::ffff:1.2.3.4", ""]
    same = [*row]
    same[7], same[8] = '{"b": 10000000000000000000000, "a": 2}', "::ffff:102:304"
    assert event_sha256(row) == event_sha256(same)
    for place, other in (
        (2, "x"),
        (4, "Tested"),
        (7, '{"a": 2.1}'),
        (8, "1.2.3.4"),
        (1, at + timedelta(microseconds=1)),
    ):
        assert event_sha256(row) != event_sha256([*row[:place], other, *row[place + 1 :]])


def test_seal_says_nothing_about_who_or_what(trail: list[AuditEvent], technologist: User) -> None:
    entries = json.dumps(list(AuditSeal.objects.values_list("entries", flat=True)))
    assert str(technologist.pk) not in entries
    assert "tested" not in entries


@pytest.mark.django_db(transaction=True)
def test_two_sealers_at_once_seal_every_event_once(technologist: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "BLOCK", 5)
    audit.record_many(audit.event(action="tested", actor=technologist, number=n) for n in range(60))
    start = threading.Barrier(3)

    def seal() -> None:
        start.wait()
        for _ in range(6):
            seal_events()
        connection.close()

    sealers = [threading.Thread(target=seal) for _ in range(3)]
    for sealer in sealers:
        sealer.start()
    for sealer in sealers:
        sealer.join()
    seal_events()

    listed = [event for seal in AuditSeal.objects.all() for event, _ in seal.entries]
    assert len(listed) == len(set(listed)) == AuditEvent.objects.count()
    assert not AuditEventToSeal.objects.exists()
    numbers = sorted(AuditSeal.objects.values_list("number", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    assert verify_without_triggers() == 0


def verify_without_triggers() -> int:
    """The verdict on the rows alone: the SQLite of the tests has no triggers against deletion."""
    outcome = verify()
    outcome.missing_triggers = []
    return outcome.exit_code


@pytest.mark.django_db(transaction=True)
def test_writers_and_sealer_never_wait_for_each_other(technologist: User) -> None:
    """While a transaction with a fresh event stays open, others write and seal theirs. On SQLite, where a database has
    one writer, they come after it.
    """
    seal_events()
    steps: list[str] = []
    first_wrote, second_done = threading.Event(), threading.Event()
    is_postgresql = connection.vendor == "postgresql"

    def second_writer() -> None:
        first_wrote.wait(10)
        with transaction.atomic():
            if is_postgresql:
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL lock_timeout = '2s'")
            audit.record(action="tested", actor=technologist, number=2)
        steps.append("second committed")
        seal_events()
        steps.append("sealed")
        second_done.set()
        connection.close()

    thread = threading.Thread(target=second_writer)
    thread.start()
    with transaction.atomic():
        audit.record(action="tested", actor=technologist, number=1)
        first_wrote.set()
        assert second_done.wait(10 if is_postgresql else 0.2) == is_postgresql
        steps.append("first commits")
    thread.join()

    order = ["second committed", "sealed", "first commits"]
    assert steps == (order if is_postgresql else [order[2], *order[:2]])
    seal_events()
    assert not AuditEventToSeal.objects.exists()
    assert verify_without_triggers() == 0


# --- Verifying: what was done to the trail is found ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("action", "'testeD'"),
        ("facts", "'{\"number\": 5}'"),
        ("actor_id", "NULL"),
        ("laboratory_id", "NULL"),
        ("target_id", "'x'"),
        ("target_type", "'case'"),
        ("ip", "'10.0.0.1'"),
        ("request_id", "'x'"),
        ("at", "'2026-01-01 00:00:00+00:00'"),
    ],
)
def test_event_of_which_one_column_was_changed_is_named(trail: list[AuditEvent], column: str, value: str) -> None:
    forge(f"UPDATE {EVENTS} SET {column} = {value} WHERE id = %s", trail[4].pk)
    assert first_of(verify()) == (str(trail[4].pk), "The event is not what was sealed in seal 2.")
    assert len(verify().findings) == 1


def test_deleted_event_is_named(trail: list[AuditEvent]) -> None:
    forge(f"DELETE FROM {EVENTS} WHERE id = %s", trail[7].pk)
    row, sentence = first_of(verify())
    assert row == str(trail[7].pk)
    assert "seal 3 lists it" in sentence


def test_two_events_that_were_swapped_are_both_named(trail: list[AuditEvent]) -> None:
    one, two = trail[1].pk, trail[5].pk
    between = audit.event(action="tested", actor=None).pk
    for source, target in ((one, between), (two, one), (between, two)):
        forge(f"UPDATE {EVENTS} SET id = %s WHERE id = %s", target, source)
    outcome = verify()
    assert [finding.row for finding in outcome.findings] == [str(one), str(two)]
    assert outcome.exit_code == 1


def test_event_that_was_slipped_in_past_the_queue_is_named(trail: list[AuditEvent]) -> None:
    forge(
        f"INSERT INTO {EVENTS} (id, at, action, target_type, target_id, facts, request_id) "
        "VALUES (%s, '2026-01-01 00:00:00+00:00', 'tested', '', '', '{}', '')",
        pk := audit.event(action="tested", actor=None).pk,
    )
    assert first_of(verify()) == (str(pk), "The event is in no seal and does not wait for one.")


def test_event_taken_out_of_the_queue_is_named(trail: list[AuditEvent], technologist: User) -> None:
    event = audit.record(action="tested", actor=technologist)
    forge(f"DELETE FROM {QUEUE} WHERE event_id = %s", event.pk)
    seal_events()
    assert first_of(verify())[0] == str(event.pk)


def test_event_deleted_before_its_seal_is_named_and_stops_nobody(trail: list[AuditEvent], technologist: User) -> None:
    gone, other = (audit.record(action="tested", actor=technologist) for _ in range(2))
    forge(f"DELETE FROM {EVENTS} WHERE id = %s", gone.pk)
    assert seal_events() == 1
    assert seal_of(other) == 4
    assert first_of(verify()) == (str(gone.pk), "The event waits for its seal and is gone.")


def test_event_sealed_a_second_time_is_named(trail: list[AuditEvent]) -> None:
    forge(f"INSERT INTO {QUEUE} (event_id) VALUES (%s)", trail[2].pk)
    assert "waits for a seal again" in first_of(verify())[1]
    seal_events()
    assert first_of(verify()) == (str(trail[2].pk), "The event is sealed twice, the second time in seal 4.")


def test_events_that_differ_by_a_swap_never_have_the_same_sum() -> None:
    one, two, three = (audit.event(action="tested", actor=None).pk for _ in range(3))
    sums = []
    for pks in ((one, two), (one, three), (one, one)):
        total = Sum(b"key")
        for pk in pks:
            total.add(pk)
        sums.append(total.total)
    assert len(set(sums)) == 3


@pytest.mark.parametrize(
    ("statement", "row", "words"),
    [
        (f"DELETE FROM {SEALS} WHERE number = 2", "2", "Seal 2 is missing"),
        (f"DELETE FROM {SEALS} WHERE number = 1", "1", "Seal 1 is missing"),
        (f"UPDATE {SEALS} SET mac = '00' WHERE number = 2", "2", "Seal 2 was changed"),
        (f"UPDATE {SEALS} SET sealed_at = '2026-01-01 00:00:00+00:00' WHERE number = 1", "1", "was changed"),
        (f"UPDATE {SEALS} SET entries = '[]' WHERE number = 3", "3", "Seal 3 was changed"),
        (f"UPDATE {SEALS} SET entries = '[[1]]' WHERE number = 3", "3", "does not list its events"),
        (f"UPDATE {SEALS} SET previous_mac = '' WHERE number = 2", "2", "does not follow"),
        (f"UPDATE {SEALS} SET key_id = 'ff' WHERE number = 2", "2", "names another key"),
    ],
)
def test_seal_that_was_touched_is_named(trail: list[AuditEvent], statement: str, row: str, words: str) -> None:
    forge(statement)
    found, sentence = first_of(verify())
    assert found == row
    assert words in sentence


def test_seals_that_were_swapped_are_found(trail: list[AuditEvent]) -> None:
    for source, target in ((2, 9), (3, 2), (9, 3)):
        forge(f"UPDATE {SEALS} SET number = {target} WHERE number = {source}")
    assert first_of(verify())[0] == "2"


def cut_tail(trail: list[AuditEvent]) -> None:
    """Delete the last seal and all that it lists, so that what is left is a whole, shorter trail."""
    for event in trail[6:]:
        forge(f"DELETE FROM {EVENTS} WHERE id = %s", event.pk)
    forge(f"DELETE FROM {SEALS} WHERE number = 3")


def test_cut_tail_is_found_by_the_file_of_heads(trail: list[AuditEvent], heads_file: Path) -> None:
    assert verify(heads=heads_file).exit_code == 0
    cut_tail(trail)
    assert verify().exit_code == 0
    outcome = verify(heads=heads_file)
    assert first_of(outcome)[0] == "3"
    assert "the end of the trail was cut off" in first_of(outcome)[1]


def test_trail_that_was_made_anew_with_the_key_is_found_by_the_file_of_heads(
    trail: list[AuditEvent], heads_file: Path, technologist: User, tmp_path: Path, settings: Any
) -> None:
    cut_tail(trail)
    settings.AUDIT_HEADS_FILE = tmp_path / "elsewhere.jsonl"
    audit.record(action="tested", actor=technologist, number=99)
    seal_events()
    assert verify().exit_code == 0
    assert "another one than the file of heads knows" in first_of(verify(heads=heads_file))[1]


def test_honest_older_copy_verifies(trail: list[AuditEvent], heads_file: Path, technologist: User) -> None:
    """A backup of an hour ago with the file of heads of its time; and today's trail with a file that has fewer."""
    older = heads_file.with_name("older.jsonl")
    older.write_bytes(heads_file.read_bytes())
    audit.record(action="tested", actor=technologist)
    seal_events()
    assert verify(heads=older).exit_code == 0

    last = AuditSeal.objects.order_by("-number").first()
    assert last is not None
    forge(f"DELETE FROM {EVENTS} WHERE id = %s", last.entries[-1][0])
    forge(f"DELETE FROM {SEALS} WHERE number = 4")
    assert verify(heads=older).exit_code == 0
    assert verify().exit_code == 0


def test_findings_come_in_the_order_of_the_trail(trail: list[AuditEvent]) -> None:
    forge(f"UPDATE {SEALS} SET mac = '00' WHERE number = 3")
    forge(f"DELETE FROM {EVENTS} WHERE id = %s", trail[0].pk)
    assert [finding.row for finding in verify().findings] == [str(trail[0].pk), "3"]


def test_many_findings_are_counted_and_the_first_are_told(technologist: User, delete_triggers: None) -> None:
    audit.record_many(audit.event(action="tested", actor=technologist, number=n) for n in range(25))
    seal_events()
    forge(f"UPDATE {EVENTS} SET action = 'forged' WHERE action = 'tested'")
    outcome = verify()
    assert (outcome.broken, len(outcome.findings)) == (25, 20)


def test_facts_that_are_no_object_are_found(technologist: User, delete_triggers: None) -> None:
    event = audit.event(action="tested", actor=technologist)
    event.facts = ["free text"]
    event.save()
    seal_events()
    assert first_of(verify()) == (str(event.pk), "The event's facts are no object.")


def test_column_that_holds_rubbish_names_its_event(trail: list[AuditEvent]) -> None:
    """SQLite keeps anything in most columns; PostgreSQL only what fits its type."""
    rubbish = {"facts": "'7'"}
    if connection.vendor == "sqlite":
        rubbish = {"at": "'2026-99-99'", "actor_id": "NULL", "facts": "'7'", "ip": "'zz'", "target_id": "X'00FF'"}
    for event, (column, value) in zip(trail, rubbish.items(), strict=False):
        forge(f"UPDATE {EVENTS} SET {column} = {value} WHERE id = %s", event.pk)
    assert [finding.row for finding in verify().findings] == [str(event.pk) for event in trail[: len(rubbish)]]


# --- Triggers ----------------------------------------------------------------------------------------------------
def test_triggers_are_all_there(delete_triggers: None, db: None) -> None:
    assert missing_triggers() == []


def drop(name: str, table: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name}" + (f" ON {table}" if connection.vendor == "postgresql" else ""))


def test_missing_trigger_is_named(trail: list[AuditEvent]) -> None:
    guard = f"{EVENTS}_insert_only" if connection.vendor == "postgresql" else f"{EVENTS}_never_changed"
    drop(guard, EVENTS)
    drop("audit_event_waits", EVENTS)
    outcome = verify()
    assert outcome.missing_triggers == sorted([guard, "audit_event_waits"])
    assert outcome.exit_code == 1
    assert outcome.findings == []


def test_trigger_that_does_nothing_counts_as_missing(trail: list[AuditEvent]) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                POSTGRESQL[0].replace("INSERT INTO accounts_auditeventtoseal (event_id) VALUES (NEW.id);", "")
            )
        else:
            cursor.execute("DROP TRIGGER audit_event_waits")
            cursor.execute(f"CREATE TRIGGER audit_event_waits AFTER INSERT ON {EVENTS} BEGIN SELECT 1; END")
    assert missing_triggers() == ["audit_event_waits"]


# --- Keys --------------------------------------------------------------------------------------------------------
def test_key_that_was_replaced_still_verifies_what_it_sealed(
    trail: list[AuditEvent], settings: Any, technologist: User
) -> None:
    settings.AUDIT_KEY_FALLBACKS, settings.AUDIT_KEY = [settings.AUDIT_KEY], "another key"
    audit.record(action="tested", actor=technologist)
    seal_events()
    assert AuditSeal.objects.values("key_id").distinct().order_by().count() == 2
    assert verify().exit_code == 0


def test_without_its_key_a_trail_can_not_be_verified(trail: list[AuditEvent], settings: Any) -> None:
    key_id = AuditSeal.objects.get(number=1).key_id
    settings.AUDIT_KEY = "another key"
    outcome = verify()
    assert (outcome.exit_code, outcome.unknown_keys) == (2, {key_id})
    settings.AUDIT_KEY = ""
    assert verify().exit_code == 2
    forge(f"DELETE FROM {EVENTS} WHERE id = %s", trail[0].pk)
    assert first_of(verify())[0] == str(trail[0].pk)


def test_seal_forged_without_the_key_is_found(trail: list[AuditEvent], settings: Any, technologist: User) -> None:
    real, settings.AUDIT_KEY = settings.AUDIT_KEY, "the attacker's"
    audit.record(action="tested", actor=technologist)
    seal_events()
    settings.AUDIT_KEY = real
    forge(f"UPDATE {SEALS} SET key_id = '{AuditSeal.objects.get(number=1).key_id}' WHERE number = 4")
    assert first_of(verify()) == ("4", "Seal 4 was changed.")


# --- The file of heads -------------------------------------------------------------------------------------------
def heads(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines() if line.endswith("}")]


def test_heads_are_private_and_grow_by_a_line_a_seal(trail: list[AuditEvent], heads_file: Path) -> None:
    assert heads(heads_file) == [1, 2, 3]
    assert heads_file.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(heads_file.read_text().splitlines()[0])) == {"number", "mac", "sealed_at"}


def test_heads_that_a_crash_kept_from_the_file_are_written_at_the_next_sealing(
    trail: list[AuditEvent], heads_file: Path
) -> None:
    lines = heads_file.read_text().splitlines(keepends=True)
    heads_file.write_text(lines[0] + lines[1][:30])
    seal_events()
    assert heads(heads_file) == [1, 2, 3]
    assert verify(heads=heads_file).exit_code == 0
    seal_events()
    assert heads(heads_file) == [1, 2, 3]


def test_file_that_was_moved_away_is_begun_anew(trail: list[AuditEvent], heads_file: Path) -> None:
    heads_file.unlink()
    seal_events()
    assert heads(heads_file) == [1, 2, 3]


def test_file_of_heads_keeps_what_a_database_that_was_set_back_has_lost(
    trail: list[AuditEvent], heads_file: Path, technologist: User
) -> None:
    cut_tail(trail)
    audit.record(action="tested", actor=technologist)
    seal_events()
    assert heads(heads_file) == [1, 2, 3, 3]
    assert verify(heads=heads_file).exit_code == 1


def test_heads_that_can_not_be_written_stop_no_seal(
    technologist: User, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "obstacle").touch()
    settings.AUDIT_HEADS_FILE = tmp_path / "obstacle" / "heads.jsonl"
    said: list[str] = []
    monkeypatch.setattr(audit_heads.logger, "error", lambda event, **_: said.append(event))
    audit.record(action="tested", actor=technologist)
    assert seal_events() > 0
    assert said == ["audit_heads_not_written"]


# --- The command -------------------------------------------------------------------------------------------------
def run(*arguments: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    try:
        call_command("verify_audit", *arguments, stdout=out, stderr=err)
    except SystemExit as end:
        return int(str(end.code)), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_command_says_that_a_trail_is_whole(trail: list[AuditEvent], heads_file: Path) -> None:
    status, out, err = run("--heads", str(heads_file))
    assert status == 0
    assert "is whole" in out
    assert "All 3 heads" in out
    assert err == ""
    assert "--heads" in run()[1]


def test_command_names_the_broken_row_first(trail: list[AuditEvent]) -> None:
    forge(f"UPDATE {EVENTS} SET action = 'forged' WHERE id = %s", trail[4].pk)
    status, out, _ = run()
    assert status == 1
    assert out.startswith(str(trail[4].pk))
    status, out, _ = run("--json")
    assert status == 1
    assert json.loads(out)["findings"][0]["row"] == str(trail[4].pk)


def test_command_names_missing_triggers(trail: list[AuditEvent]) -> None:
    drop("audit_event_waits", EVENTS)
    status, out, _ = run()
    assert (status, "audit_event_waits" in out) == (1, True)


def test_command_says_why_it_could_not_verify(trail: list[AuditEvent], settings: Any, tmp_path: Path) -> None:
    assert run("--heads", str(tmp_path / "nothing"))[0] == 2
    settings.AUDIT_KEY = "another key"
    status, _, err = run()
    assert status == 2
    assert "neither AUDIT_KEY" in err
    settings.AUDIT_KEY = ""
    assert "There is no AUDIT_KEY" in run()[2]


def test_command_warns_where_nobody_seals(trail: list[AuditEvent], technologist: User) -> None:
    event = audit.record(action="tested", actor=technologist)
    moment = "now() - interval '6 minutes'" if connection.vendor == "postgresql" else "datetime('now', '-6 minutes')"
    forge(f"UPDATE {EVENTS} SET at = {moment} WHERE id = %s", event.pk)
    status, _, err = run()
    assert status == 0
    assert "nobody seals" in err


@pytest.mark.django_db(transaction=True)
def test_verification_sees_one_moment_and_keeps_nobody_waiting(technologist: User) -> None:
    """Somebody writes and seals between the reading of the seals and that of the events."""
    audit.record(action="tested", actor=technologist, number=1)
    seal_events()
    sealed_meanwhile: list[int] = []

    def write_and_seal() -> None:
        audit.record(action="tested", actor=technologist, number=2)
        sealed_meanwhile.append(seal_events())
        connection.close()

    class Interrupted(Verification):
        def check_sums(self) -> None:
            other = threading.Thread(target=write_and_seal)
            other.start()
            other.join(30)
            super().check_sums()

    with one_moment():
        outcome = Interrupted(lambda _what, _count: None).run(None, 0)
    assert sealed_meanwhile == [1]
    assert outcome.findings == []
    assert outcome.events == AuditEvent.objects.count() - 1
    assert verify_without_triggers() == 0


def test_stored_event_is_read_as_it_was_written(technologist: User) -> None:
    event = audit.record(action="tested", actor=technologist, name="x", n=2, share=0.5, none=None, several=[1, "b"])
    (row,) = stored_events([event.pk])
    assert json.loads(row[COLUMNS.index("facts")]) == event.facts
    assert row[COLUMNS.index("at")] == AuditEvent.objects.get(pk=event.pk).at
