"""How fast a full queue empties, without the web: pictures that are queued already, and nothing but workers."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.instance import MeasuredInstance, Servers, instance, used_since
from ml.progress import Progress

TIMEOUT_SECONDS = 900
LOOK_SECONDS = 0.1


def drain(pictures: Sequence[Path], servers: Servers, database: str, *, workers: int) -> dict[str, Any]:
    """Images a second from the first image that is classified to the last; the workers' start is not measured."""
    with instance(servers, database, workers=workers) as made:
        made.stage(pictures)
        made.start("worker", "beat")
        progress = Progress(f"{database}: drain, {workers} worker processes", len(pictures))
        first, first_count = wait_for(made, 1, progress)
        before = made.processor_seconds()
        last, last_count = wait_for(made, len(pictures), progress)
        count = last_count - first_count
        return {
            "n": len(pictures),
            "workers": workers,
            "images_per_second": count / max(last - first, LOOK_SECONDS),
            "processor_ms": used_since(before, made.processor_seconds(), max(1, count)),
            "worker_rss_mb": made.memory_mb("worker"),
        }


def wait_for(made: MeasuredInstance, count: int, progress: Progress) -> tuple[float, int]:
    """When so many were classified, and how many it were then. Raises TimeoutError."""
    ends = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < ends:
        done = made.classified()
        progress.advance(done - progress.done)
        if done >= count:
            return time.monotonic(), done
        time.sleep(LOOK_SECONDS)
    message = f"After {TIMEOUT_SECONDS} s {progress.done} of {count} images are classified: {made.statuses()}"
    raise TimeoutError(message)
