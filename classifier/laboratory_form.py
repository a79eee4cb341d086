"""The form of a laboratory's settings: what was typed is kept as it was typed, whatever is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import available_timezones

from django.http import QueryDict

from classifier.errors import InvalidInput
from classifier.laboratory_settings import start_cell_types
from classifier.models import LaboratorySettings
from ml.labels import CELL_TYPES, display_name

LONGEST = 64
KEYS = 9
UP, DOWN = "up", "down"


@dataclass
class TypedRule:
    """A row of the table of cell types, as text."""

    slug: str
    low: str
    high: str
    loinc: str
    error: tuple[str, str] = ("", "")

    @property
    def name(self) -> str:
        return display_name(self.slug)

    @property
    def wrong(self) -> str:
        """Which of `range_low`, `range_high`, `loinc` is wrong; empty when none is."""
        return self.error[0]

    @property
    def message(self) -> str:
        return self.error[1]


@dataclass
class TypedSettings:
    """What stands in the form. `based_on` is the version that was on the page when the typing began."""

    based_on: int
    target_count: str
    uploader_may_release: bool
    abstain_below: str
    time_zone: str
    rules: list[TypedRule]
    errors: dict[str, str] = field(default_factory=dict)
    anchor: str = ""

    @classmethod
    def of(cls, settings: LaboratorySettings) -> "TypedSettings":
        """The form as it is filled in at first."""
        threshold = settings.abstain_below
        return cls(
            based_on=settings.version,
            target_count=str(settings.target_count),
            uploader_may_release=settings.uploader_may_release,
            abstain_below="" if threshold is None else f"{100 * threshold:.10g}",
            time_zone=settings.time_zone,
            rules=complete(
                [
                    TypedRule(rule["slug"], text_of(rule["range_low"]), text_of(rule["range_high"]), rule["loinc"])
                    for rule in settings.cell_types
                ]
            ),
        )

    @classmethod
    def posted(cls, post: QueryDict) -> "TypedSettings":
        """What came in: the rows in the order in which the form named them, each once."""

        def typed(name: str) -> str:
            return post.get(name, "").strip()[:LONGEST]

        slugs = [slug for slug in dict.fromkeys(post.getlist("slug")) if slug in CELL_TYPES]
        return cls(
            based_on=int(typed("based_on")) if typed("based_on").isdecimal() else -1,
            target_count=typed("target_count"),
            uploader_may_release="uploader_may_release" in post,
            abstain_below=typed("abstain_below"),
            time_zone=typed("time_zone"),
            rules=complete(
                [TypedRule(slug, typed(f"low-{slug}"), typed(f"high-{slug}"), typed(f"loinc-{slug}")) for slug in slugs]
            ),
        )

    def move(self, move: str) -> str:
        """Move a row by `up:SLUG` or `down:SLUG`; returns the sentence that says so, or nothing where it can't go."""
        direction, _, slug = move.partition(":")
        place = next((place for place, rule in enumerate(self.rules) if rule.slug == slug), None)
        if place is None or direction not in (UP, DOWN):
            return ""
        other = place - 1 if direction == UP else place + 1
        if not 0 <= other < len(self.rules):
            return ""
        self.rules[place], self.rules[other] = self.rules[other], self.rules[place]
        return f"{display_name(slug)} is on place {other + 1} now. Nothing is saved yet."

    def values(self) -> dict[str, Any]:
        """The arguments of `save_laboratory_settings`. Raises InvalidInput (not_a_number) with the `field`."""
        threshold = number_of(self.abstain_below, "abstain_below", "The confidence threshold")
        return {
            "based_on": self.based_on,
            "target_count": whole_number_of(self.target_count, "target_count", "The target count"),
            "uploader_may_release": self.uploader_may_release,
            "abstain_below": None if threshold is None else round(threshold / 100, 10),
            "time_zone": self.time_zone,
            "cell_types": [
                {
                    "slug": rule.slug,
                    "range_low": number_of(rule.low, f"cell_types.{rule.slug}.range_low", f"{rule.name}: a limit"),
                    "range_high": number_of(rule.high, f"cell_types.{rule.slug}.range_high", f"{rule.name}: a limit"),
                    "loinc": rule.loinc,
                }
                for rule in self.rules
            ],
        }

    def point_out(self, field: str, message: str) -> None:
        """Put the sentence beside the field that it is about."""
        self.errors[field] = message
        if field in ("target_count", "abstain_below", "time_zone"):
            self.anchor = f"{field}-error"
        for rule in self.rules:
            place, _, which = field.removeprefix("cell_types.").partition(".")
            if place == rule.slug:
                rule.error = (which, message)
                self.anchor = f"error-{rule.slug}"


def complete(rules: list[TypedRule]) -> list[TypedRule]:
    """The rows, with the cell types that they do not name at the end: as new ones of a later vocabulary are."""
    named = {rule.slug for rule in rules}
    order = [rule["slug"] for rule in start_cell_types()]
    return [*rules, *(TypedRule(slug, "", "", "") for slug in order if slug not in named)]


def text_of(limit: float | None) -> str:
    return "" if limit is None else f"{limit:.10g}"


def number_of(text: str, field: str, what: str) -> float | None:
    """A number, with a decimal point or comma, or None for an empty text."""
    if not text:
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError as error:
        raise InvalidInput("not_a_number", f"{what} is a number, like 2.5.", field=field) from error


def whole_number_of(text: str, field: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise InvalidInput("not_a_number", f"{what} is a whole number, like 100.", field=field)
    return int(text)


def time_zones(chosen: str) -> Mapping[str, list[str]]:
    """The time zones to choose from, by continent; the one that is chosen is always among them."""
    named = {zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/")}
    zones: dict[str, list[str]] = {"Universal": ["UTC"]}
    for zone in sorted(named | ({chosen} if chosen != "UTC" and chosen in available_timezones() else set())):
        zones.setdefault(zone.partition("/")[0], []).append(zone)
    return zones
