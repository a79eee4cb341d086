"""Whether memory stays bounded: ten thousand different pictures, 200 uploads at a time, faster than any worker."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.drain import wait_for
from bench.instance import Servers, instance
from bench.through_http import accepted
from ml.progress import Progress

CLIENTS = 200
EVERY_SECONDS = 1.0


def memory(pictures: Sequence[Path], servers: Servers, database: str) -> dict[str, Any]:
    """MiB of the web and of the worker process: before, the most while 200 clients upload, and when all is done."""
    with instance(servers, database) as made:
        made.start_all()
        client = made.client()
        case = client.open_case()
        accepted(made, case, pictures[:200], client.token)
        before = {name: made.memory_mb(name) for name in ("web", "worker")}
        seen: dict[str, list[float]] = {"web": [], "worker": [], "queued": []}
        over = threading.Event()

        def look() -> None:
            while not over.wait(EVERY_SECONDS):
                for name in ("web", "worker"):
                    seen[name].append(made.memory_mb(name))
                seen["queued"].append(made.statuses().get("queued", 0))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            progress = Progress(f"{database}: {CLIENTS} clients at a time", len(pictures) - 200)
            sent = accepted(made, case, pictures[200:], client.token, progress, clients=CLIENTS)
            wait_for(made, len(pictures), Progress("the last of them", len(pictures)))
        finally:
            over.set()
            looking.join()
        return {
            "n": len(pictures),
            "clients": CLIENTS,
            "told_to_come_again": sent.put_off,
            "longest_queue": int(max(seen["queued"], default=0)),
            "accepted_per_second": len(sent.posts) / (sent.ended - sent.started),
            **{
                f"{name}_rss_mb": {
                    "before": before[name],
                    "most": max(seen[name]),
                    "after": made.memory_mb(name),
                }
                for name in ("web", "worker")
            },
        }
