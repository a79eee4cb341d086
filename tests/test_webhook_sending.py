"""Sending to real receivers: signed, in order, once they can be reached, and nowhere that is not safe."""

import hashlib
import hmac
import ipaddress
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import Laboratory, User
from classifier import safe_address, services, tasks, webhook_sending
from classifier.models import MessageState, WebhookEndpoint, WebhookEvent, WebhookMessage
from classifier.webhook_request import Answer, post
from classifier.webhook_sending import claim_due, send_due, settle
from classifier.webhooks import announce
from tests.receiver import NAME, Authority, Received, Receiver, free_port, running, talking

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture(autouse=True)
def loopback_is_allowed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK
    settings.WEBHOOK_SECONDS = 2
    monkeypatch.setattr(safe_address, "resolve", lambda host, port: ["127.0.0.1"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running(Receiver()) as at_work:
        yield at_work


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority, settings: Any) -> Authority:
    settings.WEBHOOK_CA_FILE = str(authority.file)
    return authority


def endpoint_at(url: str, actor: User) -> tuple[WebhookEndpoint, str]:
    events = [event for event in WebhookEvent if event != WebhookEvent.TEST]
    return services.add_endpoint(actor=actor, url=url, events=events)


def tell(laboratory: Laboratory, number: int) -> WebhookMessage:
    announce(laboratory.pk, WebhookEvent.BATCH_FINISHED, {"number": number})
    return WebhookMessage.objects.filter(content__number=number).earliest("at")


def due_now() -> None:
    WebhookMessage.objects.filter(next_try_at__isnull=False).update(next_try_at=Now())


# --- One request ---------------------------------------------------------------------------------------------------


def posted(url: str) -> Answer:
    return post(url, b"{}", {"Content-Type": "application/json"})


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_answer_of_the_two_hundreds_acknowledges(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    assert posted(receiver.url) == Answer(status, "")


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503, 599])
def test_any_other_answer_does_not(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    assert posted(receiver.url) == Answer(status, "not_acknowledged")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    with running(Receiver()) as elsewhere:
        receiver.statuses, receiver.headers = [status], {"Location": elsewhere.url}
        assert posted(receiver.url) == Answer(status, "redirected")
        assert elsewhere.received == []


def test_request_names_the_host_and_carries_path_and_query(receiver: Receiver) -> None:
    posted(receiver.url.replace("127.0.0.1", NAME))
    request = receiver.received[0]
    assert request.headers["Host"] == f"{NAME}:{receiver.port}"
    assert request.path == "/hooks?laboratory=north"
    assert request.headers["Content-Type"] == "application/json"


def test_proxies_of_the_environment_are_not_heeded(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    assert posted(receiver.url).acknowledged


def test_name_is_resolved_once_and_that_address_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """A name that says a good address first and a forbidden one afterwards (DNS rebinding) leads nowhere else."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    monkeypatch.setattr(safe_address, "resolve", resolve)
    assert posted(receiver.url.replace("127.0.0.1", NAME)).acknowledged
    assert asked == [NAME]
    assert posted(receiver.url.replace("127.0.0.1", NAME)) == Answer(None, "address_refused")
    assert len(receiver.received) == 1


def test_address_that_can_not_be_reached_gives_way_to_the_next(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_address, "resolve", lambda host, port: ["127.1.2.3", "127.0.0.1"])
    assert posted(receiver.url.replace("127.0.0.1", NAME)).acknowledged


def test_private_address_gets_no_connection(receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = []
    assert posted(receiver.url.replace("http://127.0.0.1", f"https://{NAME}")) == Answer(None, "address_refused")
    assert posted(receiver.url) == Answer(None, "address_refused")
    assert receiver.received == []


def test_name_that_nobody_knows_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(safe_address, "resolve", unknown)
    assert posted(f"https://{NAME}/") == Answer(None, "name_not_found")


def test_receiver_that_is_down_is_said_so() -> None:
    assert posted(f"http://127.0.0.1:{free_port()}/") == Answer(None, "not_connected")


def silent(connection: socket.socket) -> None:
    time.sleep(3)


def trickling_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(60):
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


def going_on_for_ever(connection: socket.socket) -> None:
    for _ in range(60):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.05)


@pytest.mark.parametrize("talk", [silent, trickling_headers, going_on_for_ever])
def test_deadline_covers_all_of_it(talk: Callable[[socket.socket], None], settings: Any) -> None:
    settings.WEBHOOK_SECONDS = 0.5
    with talking(talk) as url:
        began = time.monotonic()
        assert posted(url) == Answer(None, "timed_out")
        assert time.monotonic() - began < 1.5


def test_only_a_little_of_an_answer_is_read(settings: Any) -> None:
    sent: list[int] = []

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent.append(connection.send(b"x" * 65536))

    with talking(endless) as url:
        began = time.monotonic()
        assert posted(url) == Answer(200, "")
        assert time.monotonic() - began < 1
    assert sum(sent) < 32 * 1024**2


def test_answer_whose_body_breaks_off_counts_by_its_status() -> None:
    with talking(lambda connection: connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nab")) as url:
        assert posted(url) == Answer(503, "not_acknowledged")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", "not_connected"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_http"),
        (b"HTTP/1.1 abc\r\n\r\n", "not_http"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", "not_http"),
        (b"HTTP/1.1 " + b"9" * 70_000, "not_http"),
    ],
)
def test_answer_that_is_no_http_is_said_so(said: bytes, code: str) -> None:
    with talking(lambda connection: connection.sendall(said)) as url:
        assert posted(url) == Answer(None, code)


# --- TLS -------------------------------------------------------------------------------------------------------------


def over_tls(context: ssl.SSLContext, name: str = NAME) -> tuple[Answer, Receiver]:
    with running(Receiver(), tls=context, name=name) as receiver:
        return posted(receiver.url), receiver


def test_tls_is_spoken_with_the_name_while_the_address_is_the_judged_one(trusting: Authority) -> None:
    answer, receiver = over_tls(trusting.server_context(NAME))
    assert answer == Answer(204, "")
    assert receiver.server_names == [NAME]
    assert len(receiver.received) == 1


def test_certificate_of_an_address_is_checked_as_well(trusting: Authority) -> None:
    assert over_tls(trusting.server_context("127.0.0.1"), "127.0.0.1")[0] == Answer(204, "")
    assert over_tls(trusting.server_context("127.0.0.9"), "127.0.0.1")[0] == Answer(None, "not_trusted")


def test_certificate_for_another_name_is_not_trusted(trusting: Authority) -> None:
    answer, receiver = over_tls(trusting.server_context("other.example.test"))
    assert answer == Answer(None, "not_trusted")
    assert receiver.received == []


def test_certificate_that_ran_out_is_not_trusted(trusting: Authority) -> None:
    assert over_tls(trusting.server_context(NAME, lasts=timedelta(hours=-1)))[0] == Answer(None, "not_trusted")


def test_certificate_of_an_unknown_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    assert over_tls(authority.server_context(NAME))[0] == Answer(None, "not_trusted")
    assert over_tls(Authority(tmp_path).server_context(NAME))[0] == Answer(None, "not_trusted")


def test_old_tls_is_not_spoken(trusting: Authority) -> None:
    context = trusting.server_context(NAME)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert over_tls(context)[0] == Answer(None, "not_trusted")


def test_plain_server_behind_an_https_address_is_not_trusted(receiver: Receiver) -> None:
    assert posted(receiver.url.replace("http:", "https:")) == Answer(None, "not_trusted")


def test_server_that_never_answers_the_handshake_is_left(settings: Any) -> None:
    settings.WEBHOOK_SECONDS = 0.5
    with talking(silent) as url:
        began = time.monotonic()
        assert posted(url.replace("http:", "https:")) == Answer(None, "timed_out")
        assert time.monotonic() - began < 1.5


# --- What a receiver gets --------------------------------------------------------------------------------------------


def test_message_is_signed_so_that_the_receiver_can_tell(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    _, secret = endpoint_at(receiver.url, lab_admin)
    message = tell(laboratory, 7)

    assert send_due() == 1

    request = receiver.received[0]
    assert request.headers["HematoVision-Event"] == "batch.finished"
    assert request.headers["HematoVision-Message-Id"] == str(message.pk)
    stamp = request.headers["HematoVision-Timestamp"]
    assert abs(time.time() - int(stamp)) < 60
    expected = hmac.new(secret.encode(), f"{stamp}.".encode() + request.body, hashlib.sha256).hexdigest()
    assert request.headers["HematoVision-Signature"] == f"t={stamp},v1={expected}"
    assert request.json == {
        "id": str(message.pk),
        "event": "batch.finished",
        "at": message.at.isoformat(),
        "replay_of": None,
        "content": {"number": 7},
    }
    message.refresh_from_db()
    assert (message.state, message.tries, message.last_status, message.outcome) == ("delivered", 1, 204, "")
    assert message.claim_token is None
    assert send_due() == 0


def test_both_secrets_sign_for_a_day_after_a_rotation(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint, before = endpoint_at(receiver.url, lab_admin)
    now = services.rotate_secret(actor=lab_admin, endpoint=endpoint)
    tell(laboratory, 1)
    send_due()
    WebhookEndpoint.objects.update(previous_secret_until=timezone.now() - timedelta(seconds=1))
    tell(laboratory, 2)
    send_due()

    def signed_with(secret: str, place: int) -> bool:
        request = receiver.received[place]
        stamp = request.headers["HematoVision-Timestamp"].encode()
        digest = hmac.new(secret.encode(), stamp + b"." + request.body, hashlib.sha256).hexdigest()
        return f"v1={digest}" in request.headers["HematoVision-Signature"].split(",")

    assert [signed_with(secret, 0) for secret in (now, before)] == [True, True]
    assert [signed_with(secret, 1) for secret in (now, before)] == [True, False]


def test_secret_survives_a_new_key_with_the_old_one_as_fallback_and_fails_clearly_without(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User, settings: Any
) -> None:
    endpoint, _ = endpoint_at(receiver.url, lab_admin)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new key, also long enough to be one"
    tell(laboratory, 1)
    send_due()
    settings.SECRET_KEY_FALLBACKS = []
    unreadable = tell(laboratory, 2)
    assert send_due() == 1

    unreadable.refresh_from_db()
    assert (unreadable.last_code, unreadable.tries, unreadable.state) == ("secret_unreadable", 1, "waiting")
    assert receiver.contents == [{"number": 1}]
    services.rotate_secret(actor=lab_admin, endpoint=endpoint)
    due_now()
    send_due()
    assert receiver.contents == [{"number": 1}, {"number": 2}]


# --- Again and again, in order ---------------------------------------------------------------------------------------


def test_failed_try_is_repeated_later_and_later(receiver: Receiver, laboratory: Laboratory, lab_admin: User) -> None:
    endpoint_at(receiver.url, lab_admin)
    receiver.statuses = [500] * 9
    message = tell(laboratory, 1)
    waits = []
    for tried in range(1, 10):
        due_now()
        assert send_due() == 1
        message.refresh_from_db()
        assert (message.tries, message.last_status, message.last_code) == (tried, 500, "not_acknowledged")
        assert message.next_try_at is not None
        waits.append(round((message.next_try_at - timezone.now()).total_seconds() / 10) * 10)
        assert send_due() == 0
    assert waits == [10, 60, 300, 1800, 7200, 21600, 21600, 21600, 21600]
    due_now()
    send_due()
    message.refresh_from_db()
    assert (message.state, message.tries) == (MessageState.DELIVERED, 10)
    assert {request.headers["HematoVision-Message-Id"] for request in receiver.received} == {str(message.pk)}


def test_message_is_given_up_after_three_days_and_says_so(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint_at(receiver.url, lab_admin)
    receiver.statuses = [503]
    message = tell(laboratory, 1)
    WebhookMessage.objects.update(at=timezone.now() - timedelta(days=2, hours=19), tries=16)
    send_due()
    message.refresh_from_db()
    assert (message.state, message.next_try_at, message.tries) == (MessageState.GIVEN_UP, None, 17)
    assert message.outcome == "The receiver answered 503; it should be 200 to 299."
    assert send_due() == 0


def test_receiver_that_was_down_for_an_hour_has_lost_nothing_and_hears_it_in_order(
    laboratory: Laboratory, lab_admin: User
) -> None:
    receiver = Receiver()
    with running(receiver):
        endpoint_at(receiver.url, lab_admin)
    for number in range(20):
        tell(laboratory, number)
    # While nobody listens, only the front of the line is tried.
    assert send_due() == 1
    for _ in range(4):
        WebhookMessage.objects.filter(tries__gt=0).update(next_try_at=Now())
        assert send_due() == 1
    WebhookMessage.objects.update(at=timezone.now() - timedelta(hours=1))
    for number in range(20):
        WebhookMessage.objects.filter(content__number=number).update(
            at=timezone.now() - timedelta(hours=1) + timedelta(seconds=number)
        )
    assert set(WebhookMessage.objects.values_list("last_code", flat=True)) == {"not_connected", ""}

    back = Receiver()
    with running(back):
        WebhookEndpoint.objects.update(url=back.url)
        due_now()
        assert send_due() == 20
    assert [content["number"] for content in back.contents] == list(range(20))
    assert {message.state for message in WebhookMessage.objects.all()} == {MessageState.DELIVERED}


def test_message_that_the_receiver_refuses_holds_up_no_other(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint_at(receiver.url, lab_admin)
    receiver.answer = lambda request: 422 if request.json["content"] == {"number": 0} else 204
    for number in range(3):
        tell(laboratory, number)
    assert send_due() == 3
    assert [content["number"] for content in receiver.contents] == [0, 1, 2]
    states = [message.state for message in WebhookMessage.objects.order_by("at")]
    assert states == ["waiting", "delivered", "delivered"]
    receiver.answer = None
    due_now()
    assert send_due() == 1


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_failure_of_the_receiver_holds_the_line(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User, status: int
) -> None:
    endpoint_at(receiver.url, lab_admin)
    receiver.statuses = [status]
    for number in range(3):
        tell(laboratory, number)
    assert send_due() == 1
    assert [content["number"] for content in receiver.contents] == [0]
    assert send_due() == 0


def test_endpoint_that_hangs_delays_no_other(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User, settings: Any
) -> None:
    with talking(silent) as hanging:
        endpoint_at(hanging, lab_admin)
        endpoint_at(receiver.url, lab_admin)
        for number in range(20):
            tell(laboratory, number)
        began = time.monotonic()
        arrived: list[float] = []

        def note(request: Received) -> int:
            arrived.append(time.monotonic() - began)
            return 204

        receiver.answer = note
        assert send_due() == 21
    assert len(arrived) == 20
    assert arrived[-1] < settings.WEBHOOK_SECONDS


def test_endpoint_that_is_switched_off_gets_nothing(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint, _ = endpoint_at(receiver.url, lab_admin)
    message = tell(laboratory, 1)
    services.switch_off_endpoint(actor=lab_admin, endpoint=endpoint)
    assert send_due() == 0
    assert receiver.received == []
    message.refresh_from_db()
    assert (message.state, message.last_code) == (MessageState.GIVEN_UP, "switched_off")


# --- Workers that die, and workers at the same moment ----------------------------------------------------------------


def test_claim_of_a_dead_worker_comes_back_and_its_message_bears_the_same_id(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint_at(receiver.url, lab_admin)
    message = tell(laboratory, 1)
    (lost,) = claim_due(8)
    webhook_sending.deliver(lost)
    assert send_due() == 0
    WebhookMessage.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    assert send_due() == 1
    assert [request.headers["HematoVision-Message-Id"] for request in receiver.received] == [str(message.pk)] * 2


def test_late_worker_changes_nothing(receiver: Receiver, laboratory: Laboratory, lab_admin: User) -> None:
    endpoint_at(receiver.url, lab_admin)
    message = tell(laboratory, 1)
    (lost,) = claim_due(8)
    WebhookMessage.objects.update(claim_expires_at=timezone.now() - timedelta(seconds=1))
    send_due()
    settle(lost, [Answer(None, "timed_out")])
    message.refresh_from_db()
    assert (message.state, message.tries, message.last_code) == (MessageState.DELIVERED, 1, "")


def test_claim_of_another_keeps_the_whole_line_waiting(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint_at(receiver.url, lab_admin)
    tell(laboratory, 1)
    claims = claim_due(8)
    tell(laboratory, 2)
    assert claim_due(8) == []
    settle(claims[0], webhook_sending.deliver(claims[0]))
    assert send_due() == 1
    assert [content["number"] for content in receiver.contents] == [1, 2]


def test_what_was_not_reached_is_let_go_without_a_try(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint_at(receiver.url, lab_admin)
    receiver.statuses = [204, 500]
    for number in range(5):
        tell(laboratory, number)
    send_due()
    rows = WebhookMessage.objects.order_by("at").values_list("tries", "claim_token")
    assert list(rows) == [(1, None), (1, None), (0, None), (0, None), (0, None)]


@pytest.mark.django_db(transaction=True)
def test_two_workers_send_each_message_once_and_in_order(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User
) -> None:
    endpoint_at(receiver.url, lab_admin)
    for number in range(40):
        tell(laboratory, number)
    gate = threading.Barrier(3)

    def work() -> None:
        gate.wait()
        try:
            # The one that finds the other at work has nothing to do at that moment.
            while WebhookMessage.objects.filter(next_try_at__isnull=False).exists():
                send_due()
        finally:
            connections.close_all()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [content["number"] for content in receiver.contents] == list(range(40))
    assert set(WebhookMessage.objects.values_list("tries", flat=True)) == {1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.django_db(transaction=True)
def test_worker_sends_in_a_thread_of_its_own_and_the_task_returns_at_once(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_once() -> int:
        send_due()
        # Ends the thread: it must not go on looking during other tests.
        raise SystemExit

    monkeypatch.setattr(webhook_sending, "send_due", send_once)
    endpoint_at(receiver.url, lab_admin)
    let_go = threading.Event()
    receiver.answer = lambda _: 204 if let_go.wait(1.5) else 500
    message = tell(laboratory, 1)
    began = time.monotonic()
    tasks.send_webhooks()
    assert time.monotonic() - began < 0.5
    sender = webhook_sending.sender
    tasks.send_webhooks()
    assert webhook_sending.sender is sender
    let_go.set()
    for _ in range(100):
        message.refresh_from_db()
        if message.delivered_at:
            break
        time.sleep(0.05)
    assert message.state == MessageState.DELIVERED
    assert sender is not None
    sender.join(timeout=5)
    assert not sender.is_alive()


def test_sender_outlives_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    class Enough(BaseException):
        """Ends the loop of the test."""

    def look() -> int:
        looks.append(1)
        if len(looks) == 3:
            raise Enough
        raise OSError

    monkeypatch.setattr(webhook_sending, "send_due", look)
    monkeypatch.setattr(webhook_sending, "LOOK_SECONDS", 0.01)
    with pytest.raises(Enough):
        webhook_sending.send_for_ever()
    assert len(looks) == 3


def test_idle_look_costs_one_query(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User, django_assert_num_queries: Any
) -> None:
    for _ in range(3):
        endpoint_at(receiver.url, lab_admin)
    tell(laboratory, 1)
    send_due()
    with django_assert_num_queries(1):
        assert send_due() == 0


def test_logs_name_ids_and_codes_and_never_the_address_or_the_secret(
    receiver: Receiver, laboratory: Laboratory, lab_admin: User, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, secret = endpoint_at(receiver.url, lab_admin)
    receiver.statuses = [500]
    tell(laboratory, 1)
    send_due()
    said = caplog.text
    assert str(endpoint.pk) in said
    for kept_back in (secret, receiver.url, "laboratory=north", endpoint.secret):
        assert kept_back not in said


def test_claim_that_names_no_expiry_is_refused_by_the_database(laboratory: Laboratory, lab_admin: User) -> None:
    endpoint_at("https://lis.example.org/", lab_admin)
    tell(laboratory, 1)
    for wrong in ({"claim_token": uuid4()}, {"delivered_at": timezone.now()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            WebhookMessage.objects.update(**wrong)
