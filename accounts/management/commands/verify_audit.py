"""The door to the verification of the audit trail."""

import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError

from accounts.audit_verification import Outcome, verify

COULD_NOT = 2
PROGRESS_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Verify that the audit trail is whole. Exit status 0: whole; 1: broken, the first broken or missing row comes "
        "first; 2: could not verify."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--heads", type=Path, help="A copy of the file of heads: finds a trail whose end was cut.")
        parser.add_argument("--json", action="store_true", help="One JSON object instead of sentences.")

    def handle(self, *args: Any, **options: Any) -> None:
        self.shown_at = time.monotonic()
        try:
            outcome = verify(heads=options["heads"], progress=self.show_progress)
        except OSError as error:
            self.give_up(f"The file of heads can't be read: {error.strerror}.")
        except DatabaseError as error:
            self.give_up(f"The database can't be read ({type(error).__name__}).")
        if options["json"]:
            self.stdout.write(json.dumps(as_json(outcome)))
        else:
            self.tell(outcome, with_heads=options["heads"] is not None)
        if outcome.exit_code:
            sys.exit(outcome.exit_code)

    def give_up(self, sentence: str) -> None:
        self.stderr.write(f"Could not verify. {sentence}")
        sys.exit(COULD_NOT)

    def show_progress(self, what: str, count: int) -> None:
        now = time.monotonic()
        if now - self.shown_at > PROGRESS_SECONDS:
            self.shown_at = now
            self.stderr.write(f"{count:,} {what} ...", plain)

    def tell(self, outcome: Outcome, *, with_heads: bool) -> None:
        for finding in outcome.findings:
            self.stdout.write(f"{finding.row}: {finding.sentence}")
        if left := outcome.broken - len(outcome.findings):
            self.stdout.write(f"... and {left:,} more.")
        for trigger in outcome.missing_triggers:
            self.stdout.write(f"The trigger {trigger} is missing or switched off: the database does not guard itself.")
        counts = f"{outcome.events:,} events, {outcome.seals:,} seals, {outcome.waiting:,} waiting for the next one"
        if outcome.exit_code == 1:
            self.stdout.write(f"The audit trail is BROKEN ({counts}).")
        elif outcome.no_key:
            self.stderr.write("Could not verify. There is no AUDIT_KEY.")
        elif outcome.unknown_keys:
            keys = ", ".join(sorted(outcome.unknown_keys))
            self.stderr.write(
                f"Could not verify. Some seals were made with the key {keys}, which is neither AUDIT_KEY nor one of "
                "AUDIT_KEY_FALLBACKS. Everything else is as it was sealed."
            )
        else:
            self.stdout.write(f"The audit trail is whole ({counts}). The last seal is number {outcome.last_seal}.")
            if with_heads:
                self.stdout.write(f"All {outcome.heads:,} heads of the file are in it.")
            else:
                self.stdout.write("Whether its end was cut off is seen with --heads FILE alone.")
        if outcome.is_late and outcome.oldest_waiting:
            minutes = int(outcome.oldest_waiting.total_seconds() // 60)
            self.stderr.write(f"Events wait for {minutes} minutes: nobody seals. Look after worker and beat.")


def plain(text: str) -> str:
    """Not in the red in which a terminal shows what commands say on the standard error."""
    return text


def as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "whole": outcome.exit_code == 0,
        "exit_code": outcome.exit_code,
        "events": outcome.events,
        "seals": outcome.seals,
        "last_seal": outcome.last_seal,
        "waiting": outcome.waiting,
        "oldest_waiting_seconds": outcome.oldest_waiting.total_seconds() if outcome.oldest_waiting else None,
        "heads": outcome.heads,
        "broken": outcome.broken,
        "findings": [{"row": finding.row, "sentence": finding.sentence} for finding in outcome.findings],
        "missing_triggers": outcome.missing_triggers,
        "unknown_keys": sorted(outcome.unknown_keys),
    }
