"""The timer of the machine's regular work, proof against a clock that is set back."""

from typing import Any

from celery.beat import PersistentScheduler


class SteadyScheduler(PersistentScheduler):
    """Celery's own waits until the clock is again where it was at the last run: for an hour without a sweep, say."""

    def tick(self, *arguments: Any, **more: Any) -> Any:
        for entry in self.schedule.values():
            now = entry.default_now()
            if entry.last_run_at and entry.last_run_at > now:
                entry.last_run_at = now
                self._heap = None  # it holds times of the same wrong clock; it is made anew
        return super().tick(*arguments, **more)
