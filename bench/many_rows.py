"""Fills an empty instance with the history of years, by the database itself (`bench.inside bench.many_rows IMAGES`).

Twenty laboratories, ten images a case, an image every half minute: what is open and waits for somebody is the same
however long the history is, and everything else was reviewed and signed. A million images are a year.
"""

import time
from collections.abc import Callable
from hashlib import sha256
from uuid import uuid4

from django.db import connection
from django.utils import timezone

from accounts.models import AuditEvent, AuditSeal, Laboratory, User
from bench.inserting import (
    JSON_PAIRS,
    ON_POSTGRESQL,
    as_text,
    before_now,
    digest,
    fill,
    hexadecimal,
    json,
    key,
    numbers,
    run,
    truth,
    without_checks,
)
from bench.many_people import LABORATORIES, People, people
from classifier.models import (
    Batch,
    BatchMember,
    Case,
    CellImage,
    ModelVersion,
    Notification,
    Prediction,
    RemovedPicture,
    Report,
    RetentionRule,
    Review,
    Void,
    WebhookEndpoint,
    WebhookMessage,
)
from classifier.reports.payload import Signature, build_payload, canonical_json
from hematovision.preparation import gather_statistics
from ml.progress import say

IMAGES_A_CASE = 10
SECONDS_AN_IMAGE = 30
SECONDS_A_CASE = SECONDS_AN_IMAGE * IMAGES_A_CASE
# The newest of all laboratories: images that wait, cases that nobody has begun, cases that are not signed yet.
WAITING, OPEN, IN_REVIEW = 200, 400, 400
KEPT_DAYS = 180
A_SEAL = 100
CASE = f"((i - 1) / {IMAGES_A_CASE} + 1)"
ABSTAINED = "i % 41 = 0"
SAID = """(CASE WHEN (i * 7919) % 1000 < 600 THEN 'neutrophil' WHEN (i * 7919) % 1000 < 900 THEN 'lymphocyte'
 WHEN (i * 7919) % 1000 < 960 THEN 'monocyte' WHEN (i * 7919) % 1000 < 980 THEN 'eosinophil'
 WHEN (i * 7919) % 1000 < 990 THEN 'basophil' ELSE 'erythroblast' END)"""
PROBABILITIES = json('{"neutrophil": 0.91, "lymphocyte": 0.05, "monocyte": 0.03, "eosinophil": 0.01}')
HEAT_MAP = json("[" + ", ".join("[" + ", ".join(["0.123"] * 7) + "]" for _ in range(7)) + "]")


class History:
    """The rows of so many images, a kind of row a method; `i` is the image, or the case."""

    def __init__(self, images: int, people: People) -> None:
        self.images, self.cases, self.people = images, images // IMAGES_A_CASE, people
        self.version = ModelVersion.objects.get(active=True)
        self.signed = f"i <= {self.cases - OPEN - IN_REVIEW} AND i % 97 <> 0"
        # The same, asked of an image.
        self.case_is_open = f"{CASE} > {self.cases - OPEN}"
        self.case_is_signed = f"{CASE} <= {self.cases - OPEN - IN_REVIEW}"
        self.waits = f"i > {images - WAITING}"
        self.failed = f"(NOT {self.waits} AND NOT {self.case_is_signed} AND i % 50 = 17)"
        self.reviewed = (
            f"(NOT {self.waits} AND NOT {self.case_is_open} AND NOT {self.failed} "
            f"AND ({self.case_is_signed} OR i % 2 = 1))"
        )
        self.predicted = f"NOT {self.waits} AND NOT {self.failed}"
        self.age = f"({images} - i) * {SECONDS_AN_IMAGE}"
        # Cases of the demo laboratory of which the rule has removed every picture.
        youngest = f"({images} - i * {IMAGES_A_CASE}) * {SECONDS_AN_IMAGE}"
        self.emptied = (
            f"i % {LABORATORIES} = 0 AND {youngest} > {KEPT_DAYS * 86400} AND i <= {self.cases - OPEN - IN_REVIEW}"
        )
        self.case_age = f"({self.cases} - i + 1) * {SECONDS_A_CASE}"

    def kinds(self) -> list[Callable[[], None]]:
        return [
            self.add_cases, self.add_batches, self.add_images, self.add_predictions, self.add_reviews, self.add_voids,
            self.add_reports, self.add_notifications, self.add_webhooks, self.add_removed, self.add_audit_events,
            self.add_seals,
        ]  # fmt: skip

    def add_cases(self) -> None:
        fill(
            Case,
            self.cases,
            {
                "id": digest("case", "i"),
                "laboratory_id": self.people.laboratory("i"),
                "accession_number": "'A-' || i",
                "patient_pseudonym": "'P-' || (i / 80)",
                "status": f"CASE WHEN i % 97 = 0 THEN 'void' WHEN i > {self.cases - OPEN} THEN 'open' "
                f"WHEN i > {self.cases - OPEN - IN_REVIEW} THEN 'in_review' "
                "WHEN i % 50 = 7 THEN 'amended' WHEN i % 61 = 5 THEN 'corrected' ELSE 'released' END",
                "opened_by_id": self.people.technologist("i"),
                "assigned_to_id": f"CASE WHEN (i / {LABORATORIES}) % 3 = 0 THEN {self.people.reader('i')} END",
                "opened_at": before_now(self.case_age),
                "emptied_at": f"CASE WHEN {self.emptied} THEN {before_now('0')} END",
            },
        )

    def add_batches(self) -> None:
        handed_in = before_now(self.case_age)
        fill(
            Batch,
            self.cases - OPEN,
            {
                "id": digest("batch", "i"),
                "laboratory_id": self.people.laboratory("i"),
                "case_id": digest("case", "i"),
                "submitted_by_id": self.people.technologist("i"),
                "submitted_at": handed_in,
                "members_total": str(IMAGES_A_CASE),
                "members_checked": str(IMAGES_A_CASE),
                **dict.fromkeys(("checked_at", "started_at", "finished_at"), handed_in),
            },
            where="i % 7 = 0",
        )
        fill(
            BatchMember,
            self.images - OPEN * IMAGES_A_CASE,
            {
                "id": digest("member", "i"),
                "batch_id": digest("batch", CASE),
                "number": f"(i - 1) % {IMAGES_A_CASE} + 1",
                "name": "'cell.jpg'",
                "image_id": digest("image", "i"),
            },
            where=f"{CASE} % 7 = 0",
        )

    def add_images(self) -> None:
        at = before_now(self.age)
        fill(
            CellImage,
            self.images,
            {
                "id": digest("image", "i"),
                "case_id": digest("case", CASE),
                "laboratory_id": self.people.laboratory(CASE),
                "file": "'originals/bench/' || i || '.jpg'",
                "original_name": "'cell.jpg'",
                "received_sha256": hexadecimal("received", "i"),
                "stored_sha256": hexadecimal("stored", "i"),
                # Now and then the same picture is in two cases.
                "pixels_sha256": hexadecimal("pixels", "CASE WHEN i % 5000 = 0 THEN i - 11 ELSE i END"),
                **dict.fromkeys(("width", "height"), "360"),
                "stored_bytes": "12000",
                "uploaded_by_id": self.people.technologist(CASE),
                "uploaded_at": at,
                "status": f"CASE WHEN {self.waits} THEN 'queued' WHEN {self.failed} THEN 'failed' "
                f"WHEN {self.reviewed} THEN 'reviewed' ELSE 'classified' END",
                "failure_code": f"CASE WHEN {self.failed} THEN 'prediction_failed' ELSE '' END",
                "attempts": "1",
                "queued_at": at,
                "classified_at": f"CASE WHEN {self.predicted} THEN {before_now(f'{self.age} - 10')} END",
                "current_review_id": f"CASE WHEN {self.reviewed} THEN {digest('review', 'i')} END",
                "has_thumbnail": truth(self.predicted),
                "batch_id": f"CASE WHEN {CASE} % 7 = 0 AND NOT {self.case_is_open} THEN {digest('batch', CASE)} END",
            },
        )

    def add_predictions(self) -> None:
        label = f"CASE WHEN {ABSTAINED} THEN '' ELSE {SAID} END"
        said = {
            "image_id": digest("image", "i"),
            "laboratory_id": self.people.laboratory(CASE),
            "label": label,
            "suggestion": SAID,
            "confidence": "0.5 + (i * 7919 % 500) / 1000.0",
            "probabilities": PROBABILITIES,
            "conformal_set": json('["neutrophil"]'),
            "abstained": truth(ABSTAINED),
            "reason_code": f"CASE WHEN {ABSTAINED} THEN 'not_sure' ELSE '' END",
            "reason": f"CASE WHEN {ABSTAINED} THEN 'The model is not sure.' ELSE '' END",
            "ood_score": "0.5",
            "box": json("[40, 40, 320, 320]"),
            "heat_map": HEAT_MAP,
            "duration_ms": "6.5",
        }
        now = {
            "id": digest("prediction", "i"),
            "model_version_id": key(self.version.pk),
            "created_at": before_now(f"{self.age} - 10"),
        }
        fill(Prediction, self.images, {**said, **now}, where=self.predicted)
        before = ModelVersion.objects.create(
            name="before", version="1", sha256="0" * 64, labels=self.version.labels, preprocessing_version="1"
        )
        then = {
            "id": digest("earlier", "i"),
            "model_version_id": key(before.pk),
            "created_at": before_now(f"{self.age} - 5"),
        }
        fill(
            Prediction,
            self.images,
            {**said, **then},
            where=f"{self.predicted} AND {self.case_is_signed} AND i % 20 = 0",
        )

    def add_reviews(self) -> None:
        fill(
            Review,
            self.images,
            {
                "id": digest("review", "i"),
                "image_id": digest("image", "i"),
                "laboratory_id": self.people.laboratory(CASE),
                "prediction_id": digest("prediction", "i"),
                "reader_id": self.people.reader(CASE),
                "verdict": f"CASE WHEN i % 777 = 0 THEN 'UNUSABLE' WHEN {ABSTAINED} OR i % 50 = 0 THEN 'CORRECTED' "
                "ELSE 'CONFIRMED' END",
                "final_label": f"CASE WHEN i % 777 = 0 THEN '' WHEN {ABSTAINED} THEN 'lymphocyte' "
                f"WHEN i % 50 = 0 THEN CASE {SAID} WHEN 'monocyte' THEN 'lymphocyte' ELSE 'monocyte' END "
                f"ELSE {SAID} END",
                "created_at": before_now(f"{self.age} - 600"),
            },
            where=self.reviewed,
        )

    def add_voids(self) -> None:
        about = {"reason": "'Entered in error'", "at": before_now(f"{self.case_age} - 200")}
        by = {"by_id": self.people.reader("i"), "laboratory_id": self.people.laboratory("i")}
        fill(
            Void,
            self.cases - OPEN,
            {"id": digest("void", "i"), "case_id": digest("case", "i"), **about, **by},
            where="i % 97 = 0",
        )
        image = f"(i * {IMAGES_A_CASE} - 3)"
        fill(
            Void,
            self.cases - OPEN,
            {"id": digest("image void", "i"), "image_id": digest("image", image), **about, **by},
            where="i % 30 = 0 AND i % 97 <> 0",
        )

    def add_reports(self) -> None:
        content = payload_like(digest("case", f"{self.cases - OPEN - IN_REVIEW - 1}"))
        fill(
            Report,
            self.cases,
            {
                "id": digest("report", "i"),
                "case_id": digest("case", "i"),
                "laboratory_id": self.people.laboratory("i"),
                "version": "1",
                "kind": "'released'",
                "payload_json": "'" + content.replace("'", "''") + "'",
                "sha256": f"'{sha256(content.encode()).hexdigest()}'",
                "signed_by_id": self.people.reader("i"),
                "signed_at": before_now(f"{self.case_age} - 1200"),
            },
            where=self.signed,
        )

    def add_notifications(self) -> None:
        at = before_now(self.case_age)
        fill(
            Notification,
            self.cases,
            {
                "id": digest("notification", "i"),
                "user_id": self.people.reader("i"),
                "kind": "'case_assigned'",
                "case_id": digest("case", "i"),
                "at": at,
                "read_at": f"CASE WHEN i <= {self.cases - OPEN} THEN {at} END",
            },
        )

    def add_webhooks(self) -> None:
        endpoint = WebhookEndpoint.objects.create(
            laboratory=Laboratory.objects.get(users__email="reader@demo.example"),
            url="https://lis.bench.example/hook",
            events=["report.released"],
            secret="",
            made_by=User.objects.get(email="admin@demo.example"),
        )
        at = before_now(self.case_age)
        fill(
            WebhookMessage,
            self.cases,
            {
                "id": digest("message", "i"),
                "endpoint_id": key(endpoint.pk),
                "event": "'report.released'",
                "content": json("{}"),
                "at": at,
                "delivered_at": at,
                "tries": "1",
                "last_status": "200",
            },
            where=f"i % {LABORATORIES} = 0 AND {self.signed}",
        )

    def add_removed(self) -> None:
        """The demo laboratory's rule has removed what it does not keep."""
        rule = RetentionRule.objects.create(
            laboratory=Laboratory.objects.get(users__email="reader@demo.example"),
            version=1,
            keep_days=KEPT_DAYS,
            reason="As the law has it",
            by=User.objects.get(email="admin@demo.example"),
        )
        fill(
            RemovedPicture,
            self.images,
            {"image_id": digest("image", "i"), "rule_id": key(rule.pk), "at": before_now("0")},
            where=f"{CASE} % {LABORATORIES} = 0 AND {self.age} > {KEPT_DAYS * 86400} AND {self.case_is_signed}",
        )

    def add_audit_events(self) -> None:
        about = {"ip": "'192.0.2.7'" + ("::inet" if ON_POSTGRESQL else ""), "request_id": "md5('request' || i)"}
        fill(
            AuditEvent,
            self.images,
            {
                "id": digest("uploaded", "i"),
                "at": before_now(self.age),
                "actor_id": self.people.technologist(CASE),
                "laboratory_id": self.people.laboratory(CASE),
                "action": "'image_uploaded'",
                "target_type": "'cellimage'",
                "target_id": as_text(digest("image", "i")),
                "facts": json('{"stored_bytes": 12000}'),
                **about,
            },
        )
        for action, actor in (("case_opened", self.people.technologist("i")), ("case_viewed", self.people.reader("i")),
                              ("images_classified", "NULL")):  # fmt: skip
            fill(
                AuditEvent,
                self.cases,
                {
                    "id": digest(action, "i"),
                    "at": before_now(self.case_age),
                    "actor_id": actor,
                    "laboratory_id": self.people.laboratory("i"),
                    "action": f"'{action}'",
                    "target_type": "'case'",
                    "target_id": as_text(digest("case", "i")),
                    "facts": json('{"page": "case"}'),
                    **about,
                },
            )

    def add_seals(self) -> None:
        """Seals of the uploads. Their hashes are none: they are as long as those that are."""
        event = as_text(digest("uploaded", f"i * {A_SEAL} - j"))
        pairs = f"{JSON_PAIRS}({event}, '{'0' * 64}')) FROM {numbers('j', A_SEAL)}"
        fill(
            AuditSeal,
            self.images // A_SEAL,
            {
                "number": "i",
                "sealed_at": before_now(f"({self.images} - i * {A_SEAL}) * {SECONDS_AN_IMAGE}"),
                "entries": f"(SELECT {pairs})",
                **dict.fromkeys(("previous_mac", "mac"), hexadecimal("mac", "i")),
                "key_id": "'bench'",
            },
        )


def payload_like(case_id: str) -> str:
    """What a report of such a case holds; every report of the bench holds the same."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {case_id}")
        [found] = cursor.fetchone()
    case = Case.objects.select_related("laboratory").get(pk=found)
    signer = User.objects.get(email="reader@demo.example")
    signature = Signature(uuid4(), 1, "released", "", "", signer, timezone.now(), None)
    return canonical_json(build_payload(case, signature=signature))


def main(words: list[str]) -> None:
    images = int(words[0])
    started = time.monotonic()
    history = History(images, people())
    kinds = history.kinds()
    tables = [
        model._meta.db_table
        for model in (
            Case, Batch, BatchMember, CellImage, Prediction, Review, Void, Report, Notification, WebhookMessage,
            RemovedPicture, AuditEvent, AuditSeal,
        )
    ]  # fmt: skip
    with without_checks(tables):
        for place, add in enumerate(kinds, start=1):
            add()
            took = time.monotonic() - started
            left = took / place * (len(kinds) - place)
            name = add.__name__.removeprefix("add_").replace("_", " ")
            say(f"{name}: {place} of {len(kinds)} kinds of rows, {took:.0f} s so far, about {left:.0f} s left")
        say("indexes ...")
    say("statistics, as the databases keep them ...")
    if ON_POSTGRESQL:
        run("VACUUM ANALYZE")
    else:
        gather_statistics()
    say(f"{images:,} images after {time.monotonic() - started:.0f} s")
