"""Wake-ups wait behind what must happen in time."""

from celery import current_app
from kombu import Consumer

from classifier.wakeup import send_wake_up


def test_sweeps_and_seals_overtake_the_wake_ups_of_many_uploads() -> None:
    with current_app.connection_for_read() as broker:
        [queue] = [queue(broker.default_channel) for queue in current_app.amqp.queues.values()]
        queue.purge()
        for _ in range(3):
            send_wake_up()
        current_app.send_task("accounts.seal_audit")

        order: list[str] = []

        def take(body: object, message: object) -> None:
            order.append(message.headers["task"])  # type: ignore[attr-defined]
            message.ack()  # type: ignore[attr-defined]

        with Consumer(broker.default_channel, [queue], callbacks=[take], accept=["json"]):
            for _ in range(4):
                broker.drain_events(timeout=5)

    assert order == ["accounts.seal_audit", *["classifier.classify_queued"] * 3]
