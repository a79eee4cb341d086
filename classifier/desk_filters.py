"""How the lists of the audit desk are narrowed. Pages and exports use the same filters, so both hold the same rows.

A filter is a parameter of the address: an id, a code or a date, never what somebody typed as search text. None of them
joins a table that could show a row twice, so nothing is ever made distinct.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from accounts.audit_filters import MACHINE
from accounts.models import Laboratory, User
from classifier.abstention import BELOW_LABORATORY_THRESHOLD
from classifier.errors import FAILURES, InvalidInput
from classifier.few_rows import (
    Among,
    images_read_as,
    images_uploaded_by,
    images_with_review_by,
    no_longer_counting,
    predictions_by_reading,
    predictions_called,
    reviews_by_reading,
    uploaded_by,
    void_images,
)
from classifier.models import (
    CELL_TYPE_CHOICES,
    AmendmentKind,
    CaseStatus,
    CellImage,
    ExportKind,
    ImageStatus,
    MessageState,
    ModelVersion,
    ReportKind,
    Review,
    Verdict,
    WebhookEvent,
)

Rows = QuerySet[Any]
Choices = list[tuple[str, str]]
UNIDENTIFIED = "unidentified"
YES_NO: Choices = [("yes", "Yes"), ("no", "No")]
# From the least confidence on, up to the next one's; the last one includes 1.
BANDS: dict[str, tuple[float, float, str]] = {
    "below-50": (0.0, 0.5, "Below 50 %"),
    "50-70": (0.5, 0.7, "50 to 70 %"),
    "70-90": (0.7, 0.9, "70 to 90 %"),
    "90-99": (0.9, 0.99, "90 to 99 %"),
    "from-99": (0.99, 1.01, "99 % and more"),
}
REASONS: Choices = [
    ("not_sure", "Not sure"),
    (BELOW_LABORATORY_THRESHOLD, "Below the laboratory's threshold"),
    ("unfamiliar_microscope", "Unfamiliar microscope"),
    ("not_a_cell", "Not a cell"),
    ("no_leukocyte", "No leukocyte"),
    ("several_leukocytes", "Several leukocytes"),
]
READINGS: Choices = [
    ("read", "Confirmed or corrected"),
    ("agreed", "The reader agreed"),
    ("overridden", "The reader said another class"),
    ("identified", "The model abstained, the reader said a class"),
    ("unusable", "The reader found it unusable"),
    ("unread", "Not reviewed"),
]
# What a page's address holds besides filters: the page, the order, "show all", an error's mark.
NO_FILTERS = frozenset({"p", "o", "all", "e"})


@dataclass(frozen=True)
class DeskFilter:
    """One parameter. `choices` offers values for a laboratory (None: for all); empty where any value of the right form
    will do. `clean` gives the value as it is kept, or None for one that can't be used.
    """

    name: str
    title: str
    apply: Callable[[Rows, str], Rows]
    clean: Callable[[str], str | None]
    choices: Callable[[Laboratory | None], Choices]
    # The column of days.
    field: str = ""
    # A column, and what it holds wherever the filter fits, if that is little.
    among: Among | None = None

    def narrow(self, rows: Rows, value: str, laboratory_id: UUID | None) -> Rows:
        """What `apply` leaves of the laboratory's rows; where that is little it is found without reading the others."""
        rows = self.apply(rows, value)
        if self.among is None:
            return rows
        column, keys = self.among(laboratory_id, value)
        return rows if keys is None else rows.filter(**{f"{column}__in": keys})


def coded(
    name: str, title: str, choices: Choices, apply: Callable[[Rows, str], Rows], among: Among | None = None
) -> DeskFilter:
    """A filter of a fixed list of codes."""
    known = {code for code, _ in choices}
    return DeskFilter(
        name, title, apply, lambda value: value if value in known else None, lambda _: choices, among=among
    )


def by_id(
    name: str,
    title: str,
    choices: Callable[[Laboratory | None], Choices],
    apply: Callable[[Rows, str], Rows],
    among: Among | None = None,
) -> DeskFilter:
    return DeskFilter(name, title, apply, as_id, choices, among=among)


def as_id(value: str) -> str | None:
    try:
        return str(UUID(value))
    except ValueError:
        return None


def as_day(value: str) -> str | None:
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return None
    return day.isoformat() if 1900 <= day.year <= 9000 else None


def as_code(value: str, longest: int) -> str | None:
    """A code as the audit trail has them: lower-case letters, digits and underscores."""
    shaped = 0 < len(value) <= longest and value.isascii() and value.replace("_", "").isalnum()
    return value if shaped and value == value.lower() else None


def begin_of(day: str, days_later: int = 0) -> datetime:
    """When a day begins in the instance's time zone."""
    return timezone.make_aware(datetime.combine(date.fromisoformat(day) + timedelta(days=days_later), time.min))


def days(field: str) -> tuple[DeskFilter, DeskFilter]:
    """From a day on, and up to a day, both included."""
    return (
        DeskFilter(
            "from", "From", lambda rows, day: rows.filter(**{f"{field}__gte": begin_of(day)}), as_day, nothing, field
        ),
        DeskFilter(
            "to", "To", lambda rows, day: rows.filter(**{f"{field}__lt": begin_of(day, 1)}), as_day, nothing, field
        ),
    )


def nothing(_: Laboratory | None) -> Choices:
    return []


def model_versions(_: Laboratory | None) -> Choices:
    return [(str(version.pk), str(version)) for version in ModelVersion.objects.defer("metrics")]


def people(laboratory: Laboratory | None) -> Choices:
    """The laboratory's people, by name."""
    rows = User.objects.filter(laboratory=laboratory) if laboratory else User.objects.none()
    return sorted(((str(user.pk), str(user)) for user in rows), key=lambda pair: pair[1].lower())


def person(name: str, title: str, path: str, among: Among | None = None) -> DeskFilter:
    return by_id(name, title, people, lambda rows, pk: rows.filter(**{path: pk}), among)


def labelled(name: str, title: str, path: str, among: Among | None = None) -> DeskFilter:
    """By cell type; `unidentified` where the model abstains."""
    return coded(
        name,
        title,
        [*CELL_TYPE_CHOICES, (UNIDENTIFIED, "Unidentified")],
        lambda rows, label: rows.filter(**{path: "" if label == UNIDENTIFIED else label}),
        among,
    )


def cell_type(name: str, title: str, path: str, among: Among | None = None) -> DeskFilter:
    return coded(name, title, CELL_TYPE_CHOICES, lambda rows, label: rows.filter(**{path: label}), among)


def in_band(rows: Rows, band: str) -> Rows:
    least, below, _ = BANDS[band]
    return rows.filter(confidence__gte=least, confidence__lt=below)


def yes_or_no(name: str, title: str, condition: Q, among: Among | None = None) -> DeskFilter:
    return coded(
        name, title, YES_NO, lambda rows, value: rows.filter(condition if value == "yes" else ~condition), among
    )


def void_or_not(path: str = "") -> DeskFilter:
    """Whether the image, `path` from the row if it is none, or its whole case is void."""
    to = f"{path}__" if path else ""
    # By the column of the join: PostgreSQL reads that as what it is, and takes `void.id` for next to nothing.
    of_image = Q(**{f"{to}void__image__isnull": False})
    among = partial(void_images, column=path or "pk")
    return yes_or_no("void", "Entered in error", of_image | Q(**{f"{to}case__status": "void"}), among)


def counts_now() -> Q:
    """Of a review: that its image points at it."""
    # Asked of the images' index: a comparison of two columns is taken for next to nothing by PostgreSQL.
    return Q(Exists(CellImage.objects.filter(current_review=OuterRef("pk"))))


READ = (Verdict.CONFIRMED, Verdict.CORRECTED)
# The service sees to it that a confirmation names the model's class, and a correction another one.
VERDICTS_OF: dict[str, Sequence[Verdict]] = {
    "read": READ,
    "agreed": (Verdict.CONFIRMED,),
    "overridden": (Verdict.CORRECTED,),
    "identified": (Verdict.CORRECTED,),
    "unusable": (Verdict.UNUSABLE,),
}
# What the model said, where that is part of the question.
LABELS_OF: dict[str, Q] = {"overridden": ~Q(label=""), "identified": Q(label="")}


def predictions_read(rows: Rows, reading: str) -> Rows:
    """By what the review that counts says, where it is about this very prediction."""
    if reading == "unread":
        return rows.filter(image__current_review=None)
    if reading in LABELS_OF:
        rows = rows.filter(LABELS_OF[reading])
    about_it = Review.objects.filter(counts_now(), prediction=OuterRef("pk"), verdict__in=VERDICTS_OF[reading])
    return rows.filter(Exists(about_it.order_by()))


def reviews_read(rows: Rows, reading: str) -> Rows:
    """The same question asked of a review; `unread` has no meaning here."""
    rows = rows.filter(verdict__in=VERDICTS_OF[reading])
    if reading == "overridden":
        return rows.exclude(prediction__label="")
    return rows.filter(prediction__label="") if reading == "identified" else rows


PREDICTION_FILTERS = (
    *days("created_at"),
    by_id("model", "Model version", model_versions, lambda rows, pk: rows.filter(model_version=pk)),
    labelled("said", "What the model said", "label"),
    cell_type("suggested", "Its best guess", "suggestion"),
    coded("confidence", "Confidence", [(code, band[2]) for code, band in BANDS.items()], in_band),
    # Without a class, as whatever abstains is: said, it leads to the index of the classes.
    yes_or_no("abstained", "Abstained", Q(abstained=True, label="")),
    coded("reason", "Why it abstained", REASONS, lambda rows, code: rows.filter(label="", reason_code=code)),
    coded("reading", "What became of it", READINGS, predictions_read, predictions_by_reading),
    cell_type("final", "What the reader said", "image__current_review__final_label", images_read_as),
    person("reader", "Reader", "image__current_review__reader", images_with_review_by),
    person("uploader", "Uploaded by", "image__uploaded_by", images_uploaded_by),
    void_or_not("image"),
)
REVIEW_FILTERS = (
    *days("created_at"),
    coded("verdict", "Verdict", list(Verdict.choices), lambda rows, verdict: rows.filter(verdict=verdict)),
    coded("reading", "Reader and model", READINGS[:5], reviews_read, reviews_by_reading),
    labelled("said", "What the model said", "prediction__label", predictions_called),
    cell_type("final", "What the reader said", "final_label"),
    by_id("model", "Model version", model_versions, lambda rows, pk: rows.filter(prediction__model_version=pk)),
    person("reader", "Reader", "reader"),
    yes_or_no("counts", "Counts now", counts_now(), no_longer_counting),
    void_or_not("image"),
)
AUDIT_EVENT_FILTERS: tuple[DeskFilter, ...] = (
    *days("at"),
    DeskFilter(
        "action", "Action", lambda rows, code: rows.filter(action=code), lambda value: as_code(value, 60), nothing
    ),
    DeskFilter(
        "target_type",
        "Target",
        lambda rows, code: rows.filter(target_type=code),
        lambda value: as_code(value, 60),
        nothing,
    ),
    DeskFilter(
        "actor",
        "Actor",
        lambda rows, who: rows.filter(actor=None if who == MACHINE else who),
        lambda value: value if value == MACHINE else as_id(value),
        people,
    ),
)


IMAGE_FILTERS = (
    *days("uploaded_at"),
    coded("status", "Status", list(ImageStatus.choices), lambda rows, status: rows.filter(status=status)),
    coded(
        "failure",
        "Failure",
        [(code, code) for code in FAILURES],
        # Nothing else has a code; said, it leads to the index of what is failed.
        lambda rows, code: rows.filter(status=ImageStatus.FAILED, failure_code=code),
    ),
    person("uploader", "Uploaded by", "uploaded_by", uploaded_by),
    void_or_not(),
)
CASE_FILTERS = (
    *days("opened_at"),
    coded("status", "Status", list(CaseStatus.choices), lambda rows, status: rows.filter(status=status)),
    person("opener", "Opened by", "opened_by"),
)
VOID_FILTERS = (*days("at"), person("by", "By", "by"))
REPORT_FILTERS = (
    *days("signed_at"),
    coded("kind", "Kind", list(ReportKind.choices), lambda rows, kind: rows.filter(kind=kind)),
    person("signer", "Signed by", "signed_by"),
)
AMENDMENT_FILTERS = (
    *days("at"),
    coded("kind", "Kind", list(AmendmentKind.choices), lambda rows, kind: rows.filter(kind=kind)),
    person("by", "By", "by"),
)
BATCH_FILTERS = (*days("submitted_at"), person("submitter", "Handed in by", "submitted_by"))
MESSAGE_STATES: dict[str, Q] = {
    MessageState.WAITING: Q(next_try_at__isnull=False),
    MessageState.DELIVERED: Q(delivered_at__isnull=False),
    MessageState.GIVEN_UP: Q(next_try_at=None, delivered_at=None),
}
WEBHOOK_MESSAGE_FILTERS = (
    *days("at"),
    coded("event", "Event", list(WebhookEvent.choices), lambda rows, event: rows.filter(event=event)),
    coded(
        "state",
        "State",
        list(MessageState.choices),
        lambda rows, state: rows.filter(MESSAGE_STATES[state]),
    ),
)
EXPORT_FILTERS = (
    *days("requested_at"),
    coded("kind", "Kind", list(ExportKind.choices), lambda rows, kind: rows.filter(kind=kind)),
    person("requester", "Asked for by", "requested_by"),
)
REREAD_FILTERS = (*days("drawn_at"), person("reader", "Reader", "reader"))
EMERGENCY_ACCESS_FILTERS = days("opened_at")
LEGAL_HOLD_FILTERS = (*days("at"), yes_or_no("holds", "Holds", Q(holds=True)), person("by", "By", "by"))
REMOVED_PICTURE_FILTERS = days("at")
ERASURE_FILTERS = days("at")
# Of the pictures and reviews that leave without anything that says whose they are.
PICTURE_FILTERS: tuple[DeskFilter, ...] = (
    *days("uploaded_at"),
    cell_type("cell_type", "Cell type", "current_review__final_label"),
)
# What can be exported.
FILTERS: dict[str, tuple[DeskFilter, ...]] = {
    ExportKind.PREDICTIONS: PREDICTION_FILTERS,
    ExportKind.REVIEWS: REVIEW_FILTERS,
    ExportKind.AUDIT_EVENTS: AUDIT_EVENT_FILTERS,
    ExportKind.DE_IDENTIFIED: PICTURE_FILTERS,
}


def cleaned(filters: Iterable[DeskFilter], given: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The filters among the parameters of an address. Raises InvalidInput (unknown_filter) for any other parameter."""
    known = {each.name: each for each in filters}
    kept: dict[str, list[str]] = {}
    for name, values in given.items():
        if name in NO_FILTERS:
            continue
        if name in known and values and not values[-1]:
            # A field of the dates that was left empty.
            continue
        usable = known[name].clean(values[-1]) if name in known and values else None
        if usable is None:
            message = "This list is narrowed by something that an export can't keep. Clear that filter and ask again."
            raise InvalidInput("unknown_filter", message)
        kept[name] = [usable]
    return kept


def narrowed(rows: Rows, filters: Iterable[DeskFilter], chosen: Mapping[str, Sequence[str]]) -> Rows:
    """The rows that the chosen filters, which `cleaned` gave, leave. For all of them, as exports read them."""
    for each in filters:
        if each.name in chosen:
            rows = each.apply(rows, chosen[each.name][-1])
    return rows


def in_words(kind: str, chosen: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """(title, value) of the chosen filters, for people. Names of people are looked up."""
    said: list[tuple[str, str]] = []
    for each in FILTERS.get(kind, ()):
        if each.name in chosen:
            value = chosen[each.name][-1]
            said.append((each.title, dict(each.choices(None)).get(value) or name_of(each, value)))
    return said


def name_of(chosen: DeskFilter, value: str) -> str:
    if chosen.choices is not people:
        return value
    user = User.objects.filter(pk=value).first() if as_id(value) else None
    return str(user) if user else value
