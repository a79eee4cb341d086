"""The settings of the own laboratory: everybody of it reads them, an administrator saves new versions."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache

from accounts.middleware import SignedInRequest
from accounts.models import User
from accounts.roles import Verb
from classifier import services, storage_use
from classifier.abstention import effect_of_thresholds, least_confidence
from classifier.errors import HematoVisionError
from classifier.laboratory_form import KEYS, TypedSettings, time_zones
from classifier.laboratory_settings import Change, changes_between, settings_of, start_settings
from classifier.models import LaboratorySettings
from classifier.querysets import visible_to

VERSIONS_ON_PAGE = 20


@dataclass(frozen=True)
class VersionRow:
    """A line of the history: a version, and what it changed."""

    settings: LaboratorySettings
    changes: list[Change]


@never_cache
def laboratory(request: SignedInRequest) -> HttpResponse:
    """Read the settings; POST saves a new version, or moves a row of the form where no script does."""
    user = request.user
    if user.laboratory is None or not user.may(Verb.SEE):
        raise Http404
    may_edit = user.may(Verb.ADMINISTER)
    if request.method != "POST":
        return page(request, typed=None)
    if not may_edit:
        raise PermissionDenied
    typed = TypedSettings.posted(request.POST)
    if move := request.POST.get("move"):
        return page(request, typed=typed, note=typed.move(move), moved=move)
    try:
        saved = services.save_laboratory_settings(actor=user, **typed.values())
    except HematoVisionError as error:
        typed.point_out(error.details.get("field", ""), error.message)
        return page(request, typed=typed, error=error)
    messages.success(request, f"The settings are version {saved.version} and count from now on.")
    return redirect("laboratory")


def page(
    request: SignedInRequest,
    *,
    typed: TypedSettings | None,
    note: str = "",
    moved: str = "",
    error: HematoVisionError | None = None,
) -> HttpResponse:
    user = request.user
    settings = settings_of(user.laboratory_id)  # type: ignore[arg-type]
    form = typed or TypedSettings.of(settings)
    history = history_of(user, settings, request.GET.get("before", ""))
    meanwhile: list[VersionRow] = []
    if error is not None and error.code == "settings_changed":
        # What the others changed is shown beside what was typed, so the next save is based on that.
        meanwhile = [row for row in history["history"] if row.settings.version > form.based_on]
        form.based_on = settings.version
    context: dict[str, Any] = {
        "settings": settings,
        "form": form,
        "may_edit": user.may(Verb.ADMINISTER),
        "note": note,
        "moved": moved,
        "error": error,
        "meanwhile": meanwhile,
        "keys": KEYS,
        "time_zones": time_zones(form.time_zone),
        "least_confidence": least_confidence(),
        "effect": effect_of_thresholds(settings.laboratory_id, settings.abstain_below),
        "originals": storage_use.originals_of(settings.laboratory_id),
        "disk": storage_use.disk(),
        **history,
    }
    return render(request, "classifier/laboratory.html", context, status=error.status if error else 200)


def history_of(user: User, newest: LaboratorySettings, before: str) -> dict[str, Any]:
    """A page of versions, the newest first, each beside the one before it; one query."""
    versions = LaboratorySettings.objects.filter(visible_to(user, "laboratory")).select_related("made_by")
    if before.isdecimal() and len(before) < 10:
        versions = versions.filter(version__lt=int(before))
    found = list(versions.order_by("-version")[: VERSIONS_ON_PAGE + 1])
    more = len(found) > VERSIONS_ON_PAGE
    rows = list(rows_of(found if more else [*found, start_settings(newest.laboratory_id)]))
    return {"history": rows, "older_than": rows[-1].settings.version if more else None}


def rows_of(versions: list[LaboratorySettings]) -> Iterator[VersionRow]:
    for now, then in pairwise(versions):
        yield VersionRow(now, changes_between(then, now))
