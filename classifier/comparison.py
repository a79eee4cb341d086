"""A case beside earlier ones of the same patient pseudonym, and where it differs by more than sampling explains."""

from dataclasses import dataclass

from django.db.models.functions import Coalesce

from accounts.models import User
from classifier.binomial import limits_of_difference
from classifier.differential import LEUKOCYTES, Differential, Rules, differential
from classifier.models import Case, CaseStatus
from classifier.tallies import tallies_of

EARLIER_SHOWN = 5


@dataclass(frozen=True)
class EarlierCase:
    """An earlier case with its differential under the rules of today."""

    case: Case
    differential: Differential


@dataclass(frozen=True)
class EarlierShare:
    """`k` of `n` in an earlier case, `percent` of 100 or None where nothing is counted.

    `change` says how this case's share differs from it: `higher` or `lower` where the 95 % limits of the difference
    leave out 0, else an empty text.
    """

    k: int
    n: int
    percent: float | None
    change: str


@dataclass(frozen=True)
class ComparedType:
    """A cell type: `k` and `percent` in this case, and its share in each earlier one in their order."""

    label: str
    k: int
    percent: float | None
    earlier: tuple[EarlierShare, ...]


@dataclass(frozen=True)
class Comparison:
    """Earlier cases, the newest first, and the cell types side by side. `n` leukocytes are counted in this case."""

    n: int
    earlier: tuple[EarlierCase, ...]
    types: tuple[ComparedType, ...]


def earlier_cases(case: Case, user: User) -> list[Case]:
    """The five last cases of the same pseudonym that the user may see, from before this one, void ones left out.

    A case stands at the time at which its specimen was collected, or else at which it was opened.
    """
    if not case.patient_pseudonym:
        return []
    taken = Coalesce("collected_at", "opened_at")
    visible = Case.objects.visible_to(user).filter(
        laboratory=case.laboratory_id, patient_pseudonym=case.patient_pseudonym
    )
    others = visible.exclude(pk=case.pk).exclude(status=CaseStatus.VOID).annotate(taken_at=taken)
    before = others.filter(taken_at__lte=case.collected_at or case.opened_at)
    return list(before.order_by("-taken_at", "-id")[:EARLIER_SHOWN])


def comparison_of(case: Case, user: User, current: Differential, rules: Rules) -> Comparison | None:
    """The case beside its earlier ones; None where there are none. Takes two queries, none without a pseudonym."""
    found = earlier_cases(case, user)
    if not found:
        return None
    tallies = tallies_of(found)
    earlier = tuple(EarlierCase(each, differential(tallies[each.pk], rules)) for each in found)
    listed = [cell.label for cell in current.cells]
    listed += [
        label
        for label in LEUKOCYTES
        if label not in listed and any(cell.label == label for each in earlier for cell in each.differential.cells)
    ]
    return Comparison(current.n, earlier, tuple(_compared(label, current, earlier) for label in listed))


def _compared(label: str, current: Differential, earlier: tuple[EarlierCase, ...]) -> ComparedType:
    k = _count(label, current)
    return ComparedType(
        label=label,
        k=k,
        percent=_percent(k, current.n),
        earlier=tuple(
            _earlier_share(k, current.n, _count(label, each.differential), each.differential.n) for each in earlier
        ),
    )


def _earlier_share(k: int, n: int, earlier_k: int, earlier_n: int) -> EarlierShare:
    low, high = limits_of_difference(k, n, earlier_k, earlier_n)
    change = "higher" if low > 0 else "lower" if high < 0 else ""
    return EarlierShare(earlier_k, earlier_n, _percent(earlier_k, earlier_n), change)


def _count(label: str, of: Differential) -> int:
    return next((cell.n for cell in of.cells if cell.label == label), 0)


def _percent(k: int, n: int) -> float | None:
    return 100 * k / n if n else None
