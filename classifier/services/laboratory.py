"""What a laboratory decides for itself: every save is a new version, and no version is ever lost."""

import math
import re
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any
from zoneinfo import available_timezones

from django.db import IntegrityError, transaction

from accounts import audit
from accounts.models import User
from accounts.roles import Verb
from classifier.abstention import least_confidence
from classifier.errors import Conflict, InvalidInput
from classifier.laboratory_settings import changes_between, settings_of
from classifier.models import LaboratorySettings
from classifier.services.permission import require
from ml.labels import CELL_TYPES, display_name

LARGEST_TARGET = 10_000
LARGEST_THRESHOLD = 0.999


def save_laboratory_settings(
    *,
    actor: User,
    target_count: int,
    uploader_may_release: bool,
    abstain_below: float | None,
    time_zone: str,
    cell_types: Sequence[Mapping[str, Any]],
    based_on: int | EllipsisType = ...,
) -> LaboratorySettings:
    """Save a new version of the settings of the actor's laboratory, and let it count from now on.

    `abstain_below` is a fraction or None, the ranges in `cell_types` are percent of leukocytes or None. `based_on` is
    the version that the actor has seen; where a newer one counts by now, nothing is saved. Left out, nothing is
    compared. What counts already makes no new version: it is returned as it is.

    Raises NotAllowed; InvalidInput, with the `field` that is meant (target_count_out_of_range, threshold_out_of_range,
    threshold_below_model, unknown_time_zone, unknown_cell_type, cell_type_twice, cell_type_missing,
    range_out_of_bounds, range_upside_down, loinc_malformed); Conflict (settings_changed).
    """
    require(actor, Verb.ADMINISTER)
    then = settings_of(actor.laboratory_id)  # type: ignore[arg-type]
    now = LaboratorySettings(
        laboratory=actor.laboratory,
        version=then.version + 1,
        target_count=checked_target(target_count),
        uploader_may_release=uploader_may_release,
        abstain_below=checked_threshold(abstain_below, then.abstain_below),
        time_zone=checked_time_zone(time_zone),
        cell_types=checked_cell_types(cell_types),
        made_by=actor,
    )
    changes = changes_between(then, now)
    if then.version and not changes:
        return then
    if based_on is not ... and based_on != then.version:
        raise changed_meanwhile(then)
    try:
        with transaction.atomic():
            now.save()
            fields = [change.field for change in changes]
            audit.record(
                action="laboratory_settings_saved", actor=actor, target=now, version=now.version, fields=fields
            )
    except IntegrityError as error:
        # Somebody saved at the same moment and was first.
        raise changed_meanwhile(settings_of(then.laboratory_id)) from error
    return now


def changed_meanwhile(newest: LaboratorySettings) -> Conflict:
    message = (
        f"{newest.made_by or 'Somebody'} saved version {newest.version} meanwhile. What you typed is kept below: "
        "compare, then save again."
    )
    return Conflict("settings_changed", message, version=newest.version)


def checked_target(count: int) -> int:
    if not 1 <= count <= LARGEST_TARGET:
        message = f"The target count is a whole number from 1 to {LARGEST_TARGET:,}."
        raise InvalidInput("target_count_out_of_range", message, field="target_count")
    return count


def checked_threshold(threshold: float | None, kept: float | None) -> float | None:
    """The threshold, unless it is no stricter than the model. One that is kept as it was may stay under a new model."""
    if threshold is None or threshold == kept:
        return threshold
    if not 0 <= threshold <= LARGEST_THRESHOLD:
        message = f"The confidence threshold lies between 0 and {100 * LARGEST_THRESHOLD:g} %."
        raise InvalidInput("threshold_out_of_range", message, field="abstain_below")
    least = least_confidence()
    if least is not None and threshold < least:
        message = (
            f"The model itself gives no class below {100 * least:.1f} %, and a laboratory can only be stricter. "
            "Choose more than that, or leave it empty."
        )
        raise InvalidInput("threshold_below_model", message, field="abstain_below")
    return threshold


def checked_time_zone(name: str) -> str:
    if name not in available_timezones():
        message = "There is no time zone of that name. Choose one like Europe/Berlin."
        raise InvalidInput("unknown_time_zone", message, field="time_zone")
    return name


def checked_cell_types(cell_types: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every cell type of the vocabulary exactly once, in the given order."""
    checked: dict[str, dict[str, Any]] = {}
    for rule in cell_types:
        slug = rule.get("slug")
        if slug not in CELL_TYPES:
            message = f"There is no cell type of that name. Known: {', '.join(CELL_TYPES)}."
            raise InvalidInput("unknown_cell_type", message, field="cell_types")
        if slug in checked:
            message = f"{display_name(slug)} is in the table twice. Each cell type stands there once."
            raise InvalidInput("cell_type_twice", message, field=f"cell_types.{slug}")
        checked[slug] = checked_rule(slug, rule)
    if missing := [display_name(slug).lower() for slug in CELL_TYPES if slug not in checked]:
        message = f"Every cell type has its place in the table. Missing: {', '.join(missing)}."
        raise InvalidInput("cell_type_missing", message, field="cell_types")
    return list(checked.values())


def checked_rule(slug: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    name = display_name(slug)
    low, high = rule.get("range_low"), rule.get("range_high")
    for field, limit in (("range_low", low), ("range_high", high)):
        if limit is not None and not (math.isfinite(limit) and 0 <= limit <= 100):
            message = f"{name}: a reference range lies between 0 and 100 %."
            raise InvalidInput("range_out_of_bounds", message, field=f"cell_types.{slug}.{field}")
    if low is not None and high is not None and low > high:
        message = f"{name}: the lower limit of the reference range is above the upper one."
        raise InvalidInput("range_upside_down", message, field=f"cell_types.{slug}.range_low")
    loinc = str(rule.get("loinc") or "").strip()
    if loinc and not is_loinc(loinc):
        message = (
            f"{name}: this is no LOINC code. It has digits, a hyphen and a check digit, like 26511-6; "
            "one digit may be mistyped."
        )
        raise InvalidInput("loinc_malformed", message, field=f"cell_types.{slug}.loinc")
    return {"slug": slug, "range_low": low, "range_high": high, "loinc": loinc}


def is_loinc(code: str) -> bool:
    """Whether a code has the shape of LOINC and its check digit (modulo 10, every second digit doubled)."""
    match = re.fullmatch(r"([0-9]{1,7})-([0-9])", code)
    if match is None:
        return False
    digits = [int(digit) for digit in reversed(match[1])]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[::2])
    return (sum(doubled) + sum(digits[1::2]) + int(match[2])) % 10 == 0
