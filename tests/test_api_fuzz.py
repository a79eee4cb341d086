"""A fuzzer reads the OpenAPI document and sends what it allows, and what it does not."""

from collections.abc import Iterator
from itertools import product
from typing import Any
from zlib import crc32

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from accounts.models import User
from accounts.tokens import create_token
from classifier import services
from classifier.models import Batch, Case, ModelTrial, ModelVersion, Notification
from hematovision.wsgi import application
from tests.conftest import PASSWORD
from tests.factories import image_in_state, prediction_of
from tests.signing import settings_row

CALLS = 4
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture
def one_connection() -> Iterator[None]:
    """Requests through WSGI would close the connection that holds the test's transaction."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def things(
    case: Case, technologist: User, reader: User, lab_admin: User, model_version: ModelVersion
) -> dict[str, str]:
    """Something real for each parameter of a path."""
    image = image_in_state("classified", case=case, uploaded_by=technologist)
    prediction_of(image, model_version)
    signed = services.open_case(actor=technologist)
    read_by_hand = image_in_state("failed", case=signed, uploaded_by=technologist)
    settings_row(case.laboratory)
    services.review_image(actor=reader, image=read_by_hand, verdict="MANUAL", final_label="lymphocyte")
    webhook, _ = services.add_endpoint(actor=lab_admin, url="https://lis.example/", events=["image.classified"])
    batch = Batch.objects.create(laboratory=case.laboratory, case=case, submitted_by=reader, started_at=timezone.now())
    return {
        "case_id": str(case.pk),
        "image_id": str(image.pk),
        "report_id": str(services.release_report(actor=reader, case=signed, password=PASSWORD).pk),
        "version_id": str(model_version.pk),
        "batch_id": str(batch.pk),
        "endpoint_id": str(webhook.pk),
        "notification_id": str(Notification.objects.create(user=reader, kind="case_assigned", case=case).pk),
        "trial_id": str(ModelTrial.objects.create(case=case, model_version=model_version, requested_by=reader).pk),
        "message_id": str(services.send_test_message(actor=lab_admin, endpoint=webhook).pk),
    }


def test_fuzzer_finds_no_fault_of_ours_and_nothing_undocumented(
    things: dict[str, str], reader: User, lab_admin: User, one_connection: None
) -> None:
    schema = schemathesis.openapi.from_wsgi("/api/v1/schema/?format=json", application)
    tokens = {"webhooks": create_token(user=lab_admin), "": create_token(user=reader)}
    statuses: set[int] = set()

    def ask(fuzzed: Any) -> None:
        # Half of the addresses are of something that is there, for a made-up one says 404 to whatever is sent.
        made_up = dict(fuzzed.path_parameters or {})
        if crc32(repr(made_up).encode()) % 2:
            fuzzed.path_parameters.update({name: things[name] for name in made_up})
        token = tokens["webhooks" if "/webhooks/" in fuzzed.path else ""]
        with transaction.atomic():
            response = fuzzed.call(headers={"Authorization": f"Token {token}"})
            transaction.set_rollback(True)
        statuses.add(response.status_code)
        fuzzed.validate_response(response, checks=list(CHECKS))

    found: list[Any] = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    operations = [operation for operation in found if not operation.path.startswith("/api/v1/schema")]
    firmly = settings(
        max_examples=CALLS,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for operation, mode in product(operations, GenerationMode):
        try:
            seed(20261123)(firmly(given(fuzzed=operation.as_strategy(generation_mode=mode))(ask)))()
        except Unsatisfiable:
            # Nothing can be wrong in a request without parameters and body.
            assert mode is GenerationMode.NEGATIVE
    assert len(operations) > 40
    assert {200, 201, 400, 404} <= statuses
