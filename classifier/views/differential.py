"""The differential of a case: what the case's page and its fragment show of it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.middleware import SignedInRequest
from accounts.models import User
from classifier.binomial import cells_needed
from classifier.comparison import comparison_of
from classifier.corrected_shares import CorrectedShares, corrected_shares, nearest_confusion
from classifier.differential import PRE_CLASSIFIED, Differential
from classifier.differential_chart import chart_of
from classifier.laboratory_settings import rules_of, settings_of
from classifier.models import Case, ModelVersion
from classifier.tallies import CountedCase, count_of, differential_of

WIDTHS = (5, 10, 15, 20)
USUAL_WIDTH = 10


@dataclass(frozen=True)
class Narrowing:
    """How many leukocytes more than the `n` there are bring the limits to at most `width` points apart: of each type,
    and of `all` of them. None stands for more than anybody would count.
    """

    width: int
    n: int
    types: list[tuple[str, int | None]]

    @property
    def beyond(self) -> list[str]:
        """The types whose limits can't be brought that close."""
        return [label for label, more in self.types if more is None]

    @property
    def all(self) -> int:
        """How many more bring the limits of all types that close, except those of `beyond`."""
        return max((more for _, more in self.types if more is not None), default=0)

    @property
    def total(self) -> int:
        return self.n + self.all


def narrowing_of(differential: Differential, width: int) -> Narrowing:
    n = differential.n
    return Narrowing(width, n, [(cell.label, cells_needed(cell.n, n, width)) for cell in differential.cells])


@dataclass(frozen=True)
class Estimate:
    """The corrected shares of a case, by the card of the one model that named its cells."""

    version: ModelVersion
    corrected: CorrectedShares


def estimate_of(differential: Differential, counted: CountedCase) -> Estimate | None:
    """The estimate for cells that nobody has reviewed yet, all from one model; None else, and where it can't be had."""
    if differential.basis != PRE_CLASSIFIED or len(counted.model_ids) != 1:
        return None
    version = ModelVersion.objects.get(pk__in=counted.model_ids)
    confusion = nearest_confusion(version.metrics)
    corrected = confusion and corrected_shares(counted.pre_classified, confusion)
    return Estimate(version, corrected) if corrected else None


def chosen_width(query: Mapping[str, Any]) -> int:
    """The width that the address asks for (`width`), in points; the usual one for anything that is not offered."""
    wanted = str(query.get("width", ""))
    return next((width for width in WIDTHS if str(width) == wanted), USUAL_WIDTH)


def differential_context(case: Case, user: User, *, width: int = USUAL_WIDTH) -> dict[str, Any]:
    """What `_differential.html` and `_differential_comparison.html` show; at most three queries.

    `comparison` is worked out where a template asks for it, with two queries more.
    """
    settings = settings_of(case.laboratory_id)
    counted = count_of(case)
    differential = differential_of(case, counted.tally, settings)
    shown = differential.as_json()
    return {
        "case": case,
        "differential": shown,
        "chart": chart_of(shown["cells"]),
        "narrowing": narrowing_of(differential, width) if differential.n else None,
        "widths": WIDTHS,
        "estimate": estimate_of(differential, counted),
        "comparison": partial(comparison_of, case, user, differential, rules_of(settings)),
    }


@require_safe
@never_cache
def case_differential(request: SignedInRequest, case_id: uuid.UUID) -> HttpResponse:
    """The differential alone, for a script that has changed something; a person is sent to the case's page."""
    case = get_object_or_404(Case.objects.opened_to(request.user), pk=case_id)
    if "X-Fragment" not in request.headers:
        return redirect("case", case_id=case.pk)
    context = differential_context(case, request.user, width=chosen_width(request.GET))
    return render(request, "classifier/_differential.html", context)
