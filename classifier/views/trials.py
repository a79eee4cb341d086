"""Trying a model version on a case, and what all trials of a version came to."""

import uuid
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.models import User
from classifier import services
from classifier.differential import CellShare, Differential
from classifier.errors import HematoVisionError, InvalidInput
from classifier.laboratory_settings import rules_of, settings_of
from classifier.models import Case, ModelTrial, ModelVersion
from classifier.paging import html_page
from classifier.trials import (
    Comparison,
    changed,
    comparison_of,
    comparisons_by,
    failure_of,
    latest_of_each_case,
    progress_of,
    trials_of,
)
from classifier.views.viewed import is_look, note_case_look
from ml.labels import CELL_TYPES

CHANGED_ON_PAGE = 48
TRIALS_ON_PAGE = 50
TRIALS_OF_A_CASE = 20


@dataclass(frozen=True)
class PairRow:
    """A row of the table of labels: what the cells that counted as `label` would be. `cells` are (label, n)."""

    label: str
    cells: list[tuple[str, int]]
    n: int


@dataclass(frozen=True)
class ShareRow:
    """A cell type in both differentials."""

    before: CellShare
    after: CellShare


@never_cache
def case_trial(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The trials of a case; POST asks for one."""
    case = get_object_or_404(Case.objects.visible_to(request.user), pk=case_id)
    if request.method != "POST":
        if is_look(request):
            note_case_look(request, case)
        return page(request, case)
    if not services.may_try(request.user):
        raise PermissionDenied
    try:
        version = chosen_version(request.POST.get("model_version", ""))
        trial = services.try_model(actor=request.user, case=case, model_version=version)
    except HematoVisionError as error:
        return page(request, case, error=error)
    return redirect(f"{reverse('case-trial', args=[case.pk])}?trial={trial.pk}")


def chosen_version(text: str) -> ModelVersion:
    """Raises InvalidInput (unknown_model_version)."""
    try:
        version = ModelVersion.objects.filter(pk=uuid.UUID(text)).first()
    except ValueError:
        version = None
    if version is None:
        raise InvalidInput("unknown_model_version", "Choose a model version from the list.")
    return version


def page(request: SignedInRequest, case: Case, error: HematoVisionError | None = None) -> HttpResponse:
    versions = ModelVersion.objects.filter(active=False).defer("metrics")
    of_case = (
        trials_of(request.user)
        .filter(case=case)
        .select_related("model_version", "requested_by")
        .defer("model_version__metrics")
    )
    trials = list(of_case[:TRIALS_OF_A_CASE])
    trial = asked_for(of_case, request.GET["trial"]) if "trial" in request.GET else next(iter(trials), None)
    context: dict[str, Any] = {
        "case": case,
        "versions": versions,
        "trials": trials,
        "trial": trial,
        "may_try": services.may_try(request.user) and case.is_editable,
        "error": error,
        **(outcome_of(request, case, trial) if trial else {}),
    }
    is_fragment = trial is not None and "X-Fragment" in request.headers
    template = "classifier/trial_outcome.html" if is_fragment else "classifier/trial.html"
    return render(request, template, context, status=error.status if error else 200)


def asked_for(of_case: QuerySet[ModelTrial], text: str) -> ModelTrial:
    try:
        return get_object_or_404(of_case, pk=uuid.UUID(text))
    except ValueError as error:
        raise Http404 from error


def outcome_of(request: SignedInRequest, case: Case, trial: ModelTrial) -> dict[str, Any]:
    """How far the trial is, and once it is finished what would be different."""
    outcome: dict[str, Any] = {"progress": progress_of(trial), "failure": failure_of(trial)}
    if trial.finished_at is None:
        return outcome
    comparison = comparison_of(trial)
    before, after = comparison.differentials(rules_of(settings_of(case.laboratory_id)))
    return {
        **outcome,
        "comparison": comparison,
        "labels": labels_of(comparison),
        "pairs": pairs_of(comparison),
        "before": before,
        "after": after,
        "shares": shares_of(before, after),
        "changed": html_page(request, changed(trial), CHANGED_ON_PAGE),
    }


def labels_of(comparison: Comparison) -> list[str]:
    """The labels of either side in the order of the vocabulary, unidentified ("") last."""
    said = {label for pair in comparison.pairs for label in pair}
    return [slug for slug in CELL_TYPES if slug in said] + ([""] if "" in said else [])


def pairs_of(comparison: Comparison) -> list[PairRow]:
    labels = labels_of(comparison)
    rows = [PairRow(label, [(to, comparison.pairs[label, to]) for to in labels], 0) for label in labels]
    return [PairRow(row.label, row.cells, sum(n for _, n in row.cells)) for row in rows]


def shares_of(before: Differential, after: Differential) -> list[ShareRow]:
    """The cell types of either differential side by side, where one of the two counts any."""
    then = {share.label: share for share in before.cells}
    now = {share.label: share for share in after.cells}
    listed = [*then, *(label for label in now if label not in then)]
    empty = CellShare("", 0, 0, None, None, None, None, None, None)
    rows = [ShareRow(then.get(label, empty), now.get(label, empty)) for label in listed]
    return [row for row in rows if row.before.n or row.after.n]


@dataclass(frozen=True)
class VersionSummary:
    """What all trials of a version in the laboratory came to, each case once."""

    version: ModelVersion
    comparison: Comparison
    cases: int


@dataclass(frozen=True)
class TrialRow:
    """A trial in the list, with what it found so far."""

    trial: ModelTrial
    comparison: Comparison | None
    failure: str


@require_safe
@never_cache
def trials(request: SignedInRequest) -> HttpResponse:
    """All trials of the laboratory, and for each version what they came to."""
    shown = list(
        trials_of(request.user)
        .select_related("model_version", "requested_by", "case")
        .defer("model_version__metrics")[:TRIALS_ON_PAGE]
    )
    found = comparisons_by("pk", ModelTrial.objects.filter(pk__in=[trial.pk for trial in shown]))
    rows = [TrialRow(trial, found.get(trial.pk), failure_of(trial)) for trial in shown]
    context = {"rows": rows, "limit": TRIALS_ON_PAGE, "summaries": summaries_of(request.user)}
    return render(request, "classifier/trials.html", context)


def summaries_of(user: User) -> list[VersionSummary]:
    counted = latest_of_each_case(trials_of(user))
    comparisons = comparisons_by("model_version", counted)
    cases: dict[uuid.UUID, int] = {}
    for version_id in counted.values_list("model_version", flat=True):
        cases[version_id] = cases.get(version_id, 0) + 1
    versions = ModelVersion.objects.filter(pk__in=list(comparisons)).defer("metrics")
    return [VersionSummary(version, comparisons[version.pk], cases.get(version.pk, 0)) for version in versions]
