"""The worklist: which cases, in which order, and what a row of it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, Min, OuterRef, Q, QuerySet, Subquery, Value
from django.utils import timezone

from accounts.models import User
from accounts.roles import ROLE_VERBS, Verb
from classifier.differential import Differential, Tally
from classifier.differential_chart import Segment, stacked_bar
from classifier.few_rows import few, images_said_to_be
from classifier.laboratory_settings import settings_of
from classifier.models import Case, CaseStatus, CellImage, ImageStatus, Prediction, Report
from classifier.models.case import EDITABLE
from classifier.querysets import CaseQuerySet, CellImageQuerySet
from classifier.tallies import differential_of, tallies_of

UNREAD = "unread"
ME, NOBODY = "me", "nobody"
NEWEST, WAITING = "newest", "waiting"


@dataclass(frozen=True)
class WorklistFilter:
    """What the cases must have; what is left empty narrows nothing.

    Cell type, confidence (a fraction) and model are asked of one and the same image: "a basophil below 70 %". Void
    images count for nothing. `status` may also be UNREAD, `assigned` is ME, NOBODY or a user's id, the days are those
    of the current time zone, both included.
    """

    status: str = ""
    cell_type: str = ""
    confidence_below: float | None = None
    model: UUID | None = None
    unidentified: bool = False
    reviewer: UUID | None = None
    assigned: str = ""
    opened_from: date | None = None
    opened_to: date | None = None
    order: str = NEWEST


def worklist(user: User, wanted: WorklistFilter) -> CaseQuerySet:
    """The cases that the user sees and that fit, unordered. Void ones only where they are asked for."""
    cases = Case.objects.visible_to(user).filter(_of_status(wanted))
    if wanted.cell_type or wanted.model or wanted.confidence_below is not None:
        cases = cases.filter(_with_image_like(wanted))
        images = _few_images_like(user, wanted)
        if images is not None:
            # By a list, which is read first; each case is looked at by the condition above all the same.
            own = CellImage.objects.filter(pk__in=images).order_by()
            cases = cases.filter(pk__in=list(own.values_list("case", flat=True).distinct()))
    if wanted.unidentified:
        cases = cases.filter(Exists(_predictions(label="", image__status=ImageStatus.CLASSIFIED)))
        unread = few(CellImage.objects.filter(laboratory=user.laboratory_id, status=ImageStatus.CLASSIFIED), "case")
        cases = cases if unread is None else cases.filter(pk__in=unread)
    if wanted.reviewer:
        cases = cases.filter(Exists(_images(current_review__reader=wanted.reviewer)))
    if wanted.assigned:
        whose = {ME: user.pk, NOBODY: None}
        someone = whose[wanted.assigned] if wanted.assigned in whose else UUID(wanted.assigned)
        cases = cases.filter(assigned_to=someone)
    if wanted.opened_from:
        cases = cases.filter(opened_at__gte=_midnight(wanted.opened_from))
    if wanted.opened_to:
        cases = cases.filter(opened_at__lt=_midnight(wanted.opened_to + timedelta(days=1)))
    return cases


def _of_status(wanted: WorklistFilter) -> Q:
    if wanted.status == UNREAD:
        return _unread()
    if wanted.status:
        return Q(status=wanted.status)
    # What is signed waits for nobody.
    return Q(status__in=EDITABLE) if wanted.order == WAITING else ~Q(status=CaseStatus.VOID)


def _unread() -> Q:
    """Open, which it is until the first review, with pictures of which none waits for the model any longer."""
    # The state comes first: only of open cases are the images looked at.
    return Q(status=CaseStatus.OPEN) & Q(Exists(_images())) & Q(~Exists(_images().waiting()))


def _images(**conditions: Any) -> CellImageQuerySet:
    """The images of the case in the outer query, void ones left out."""
    # By the column of the join, which PostgreSQL reads as the anti-join that it is.
    return CellImage.objects.filter(case=OuterRef("pk"), void__image=None, **conditions)


def _predictions(**conditions: Any) -> QuerySet[Prediction]:
    """The newest prediction of each of these images that has one which counts: classified or reviewed."""
    later = Q(created_at__gt=OuterRef("created_at")) | Q(created_at=OuterRef("created_at"), id__gt=OuterRef("id"))
    newer = Prediction.objects.filter(later, image=OuterRef("image"))
    of_the_case = {"image__case": OuterRef("pk"), "image__void__image": None}
    settled = {"image__status__in": [ImageStatus.CLASSIFIED, ImageStatus.REVIEWED]}
    return Prediction.objects.filter(~Exists(newer), **of_the_case, **settled, **conditions)


def _with_image_like(wanted: WorklistFilter) -> Q:
    by_model = Q(image__status=ImageStatus.CLASSIFIED, label=wanted.cell_type)
    if wanted.confidence_below is None and wanted.model is None:
        # Not all that was reviewed has a prediction: some was read by hand.
        reviewed = _images(current_review__final_label=wanted.cell_type)
        return Q(Exists(reviewed)) | Q(Exists(_predictions().filter(by_model)))
    said = _predictions()
    if wanted.confidence_below is not None:
        said = said.filter(confidence__lt=wanted.confidence_below)
    if wanted.model:
        said = said.filter(model_version=wanted.model)
    if wanted.cell_type:
        said = said.filter(by_model | Q(image__current_review__final_label=wanted.cell_type))
    return Q(Exists(said))


def _few_images_like(user: User, wanted: WorklistFilter) -> list[UUID] | None:
    """Every image that can be what is wanted, where these are few."""
    found = images_said_to_be(user.laboratory_id, wanted.cell_type) if wanted.cell_type else None
    if found is None and (wanted.confidence_below is not None or wanted.model):
        said = Prediction.objects.filter(laboratory=user.laboratory_id)
        if wanted.confidence_below is not None:
            said = said.filter(confidence__lt=wanted.confidence_below)
        if wanted.model:
            said = said.filter(model_version=wanted.model)
        found = few(said, "image")
    return found


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


@dataclass(frozen=True)
class StatusCounts:
    """How many cases are in each state; `unread` are open ones ready to be read, the oldest since `oldest_unread`."""

    by_status: dict[str, int]
    unread: int
    oldest_unread: datetime | None

    @property
    def not_void(self) -> int:
        return sum(self.by_status.values()) - self.by_status[CaseStatus.VOID]


def status_counts(user: User) -> StatusCounts:
    """Two queries: one that reads an index alone, and one that looks at the images of open cases alone."""
    cases = Case.objects.visible_to(user).order_by()
    by_status = dict.fromkeys(CaseStatus.values, 0) | dict(cases.values_list("status").annotate(n=Count("pk")))
    unread = cases.filter(_unread()).aggregate(n=Count("pk"), oldest=Min("opened_at"))
    return StatusCounts(by_status, unread["n"], unread["oldest"])


@dataclass(frozen=True)
class WorklistRow:
    """A case with what its images come to, counted as on its own page, and by what a search found it."""

    case: Case
    tally: Tally
    differential: Differential
    found_by: str

    @property
    def segments(self) -> list[Segment]:
        return stacked_bar(self.tally)

    @property
    def flags(self) -> list[tuple[str, str]]:
        """(cell type, H or L) of each share outside its reference range."""
        return [(cell.label, cell.flag) for cell in self.differential.cells if cell.flag]


def with_what_a_row_shows(cases: CaseQuerySet) -> CaseQuerySet:
    """With the person it is assigned to, and `has_report`."""
    # For each row that is shown. As EXISTS, PostgreSQL prefers to read what reports there are first.
    report = Report.objects.filter(case=OuterRef("pk")).order_by().annotate(one=Value(value=True)).values("one")[:1]
    return cases.select_related("assigned_to").annotate(has_report=Subquery(report))


def rows_of(cases: Sequence[Case], found_by: Mapping[UUID, str] = MappingProxyType({})) -> list[WorklistRow]:
    """The rows of one page of cases of one laboratory; two queries."""
    if not cases:
        return []
    tallies, settings = tallies_of(cases), settings_of(cases[0].laboratory_id)
    return [
        WorklistRow(
            case, tallies[case.pk], differential_of(case, tallies[case.pk], settings), found_by.get(case.pk, "")
        )
        for case in cases
    ]


def people_who_review(laboratory_id: UUID | None) -> list[User]:
    """Everybody of the laboratory whose role reviews, those who are no longer active too; one query."""
    roles = [role for role, verbs in ROLE_VERBS.items() if Verb.REVIEW in verbs]
    return list(User.objects.filter(laboratory=laboratory_id, role__in=roles).order_by("full_name", "email"))
