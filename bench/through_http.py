"""What a client sees: eight at a time send pictures to one case over the API, until every one is classified."""

import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.drain import wait_for
from bench.instance import MeasuredInstance, Servers, instance, used_since
from bench.uploading import Sent, upload_all
from ml.progress import Progress

CLIENTS = 8
WARM_UP = 16
SINGLES = 20
PAUSE_SECONDS = 0.3
MOST_POLLS = 200


def through_http(pictures: Sequence[Path], servers: Servers, database: str, *, workers: int) -> dict[str, Any]:
    """Images accepted and classified a second, ms from POST to stored prediction, and single uploads when idle.

    The first `WARM_UP` and `SINGLES` pictures are for that, the others for the clients.
    """
    warm, singles, many = pictures[:WARM_UP], pictures[WARM_UP:][:SINGLES], pictures[WARM_UP + SINGLES :]
    with instance(servers, database, workers=workers) as made:
        made.start_all()
        client = made.client()
        accepted(made, client.open_case(), warm, client.token)
        wait_for(made, len(warm), Progress("warm-up", len(warm)))
        alone = single(made, singles)
        case, before = client.open_case(), sum(made.statuses().values())
        progress = Progress(f"{database}: through HTTP, {CLIENTS} clients", len(many))
        processors = made.processor_seconds()
        sent = accepted(made, case, many, client.token, progress)
        wait_for(made, before + len(many), Progress("the last of them", before + len(many)))
        used = used_since(processors, made.processor_seconds(), len(many))
        stored = stored_at(made)
        waits = sorted(stored[image] - began for image, (began, _) in sent.posts.items())
        ended = max(stored[image] for image in sent.posts)
        return {
            "n": len(sent.posts),
            "clients": CLIENTS,
            "workers": workers,
            "accepted_per_second": len(sent.posts) / (sent.ended - sent.started),
            "classified_per_second": len(sent.posts) / (ended - sent.started),
            "median_ms": 1000 * statistics.median(waits),
            "p95_ms": 1000 * waits[int(0.95 * len(waits))],
            "processor_ms": used,
            "web_rss_mb": made.memory_mb("web"),
            "worker_rss_mb": made.memory_mb("worker"),
            "single": alone,
        }


def accepted(
    made: MeasuredInstance,
    case: str,
    pictures: Sequence[Path],
    token: str,
    progress: Progress | None = None,
    *,
    clients: int = CLIENTS,
) -> Sent:
    """Send them all. Raises RuntimeError where one was not accepted."""
    path = f"/api/v1/cases/{case}/images/"
    sent = upload_all(made.port, path, pictures, clients=clients, token=token, progress=progress)
    if sent.errors:
        message = f"{len(sent.errors)} uploads were not accepted, the first: {sent.errors[0]}"
        raise RuntimeError(message)
    return sent


def single(made: MeasuredInstance, pictures: Sequence[Path]) -> dict[str, float]:
    """Medians of one upload at a time on an idle system, each to its end before the next; in ms."""
    client = made.client()
    case = client.open_case()
    posts, seen = {}, []
    for picture in pictures:
        sent = accepted(made, case, [picture], client.token, clients=1)
        [(image, (began, took))] = sent.posts.items()
        posts[image] = (began, took)
        for _ in range(MOST_POLLS):
            if client.image(image)["prediction"]:
                break
        seen.append(time.time() - began)
        time.sleep(PAUSE_SECONDS)
    stored = stored_at(made)
    after = [stored[image] - began - took for image, (began, took) in posts.items()]
    return {
        "n": len(posts),
        "post_ms": 1000 * statistics.median(took for _, took in posts.values()),
        "stored_after_post_ms": 1000 * statistics.median(after),
        "seen_ms": 1000 * statistics.median(seen),
    }


def stored_at(made: MeasuredInstance) -> dict[str, float]:
    """When the prediction of each image was stored, in seconds since the epoch, by the database."""
    rows = made.rows("SELECT image_id, created_at FROM classifier_prediction")
    return {str(UUID(str(image))): seconds(at) for image, at in rows}


def seconds(at: datetime | str) -> float:
    if isinstance(at, str):
        return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
    return at.timestamp()
