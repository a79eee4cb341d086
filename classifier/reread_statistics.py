"""What a blind re-read comes to: agreement, and how often the model's answer was taken over. Pure.

Three answers stand beside each other for every cell: `blind`, without the model; `sighted`, the review that counted
when the cell was drawn, with the model's answer in view; and `model`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from classifier.binomial import limits
from classifier.charts import MatrixRow, matrix_rows
from classifier.kappa import Kappa, kappa_of
from ml.labels import CELL_TYPES


@dataclass(frozen=True)
class ReadTwice:
    """One cell. `blind` is empty where the picture was called of no use, `model` where the model abstained.

    `own`: the same person made both readings.
    """

    blind: str
    sighted: str
    model: str
    own: bool


@dataclass(frozen=True)
class Share:
    """`k` of `n`, with exact 95 % limits; fractions 0..1, None of nothing."""

    k: int
    n: int

    @property
    def share(self) -> float | None:
        return self.k / self.n if self.n else None

    @property
    def low(self) -> float:
        return limits(self.k, self.n)[0]

    @property
    def high(self) -> float:
        return limits(self.k, self.n)[1]


@dataclass(frozen=True)
class RereadResult:
    """The figures of some cells that were read twice.

    `compared` have a class on both sides; `unusable` were called of no use without the model. `confusion` is
    blind -> sighted -> n. The rest is about cells on which the model gave a class, `answered`, and not the `abstained`:
    `taken_over`: of the cells read otherwise than the model says, those reviewed as it says;
    `went_elsewhere`: of those too, the ones reviewed as neither the model nor the blind reading says;
    `left_the_model`: of the cells read as the model says, those reviewed otherwise.
    """

    read: int
    unusable: int
    abstained: int
    confusion: dict[str, dict[str, int]]
    agreement: Share
    kappa: Kappa | None
    blind_with_model: Share
    sighted_with_model: Share
    taken_over: Share
    went_elsewhere: Share
    left_the_model: Share

    @property
    def compared(self) -> int:
        return self.agreement.n

    @property
    def answered(self) -> int:
        return self.blind_with_model.n

    @property
    def labels(self) -> list[str]:
        """The types that occur on either side, in the usual order."""
        found = set(self.confusion) | {said for counts in self.confusion.values() for said in counts}
        return [label for label in CELL_TYPES if label in found]

    @property
    def matrix(self) -> list[MatrixRow]:
        """A row for each blind class; what was said with the model in view stands across."""
        return matrix_rows(self.confusion, self.labels)


def result_of(cells: Iterable[ReadTwice]) -> RereadResult:
    cells = list(cells)
    compared = [cell for cell in cells if cell.blind and cell.sighted]
    confusion: dict[str, dict[str, int]] = {}
    for (blind, sighted), n in sorted(Counter((cell.blind, cell.sighted) for cell in compared).items()):
        confusion.setdefault(blind, {})[sighted] = n
    answered = [cell for cell in compared if cell.model]
    otherwise = [cell for cell in answered if cell.blind != cell.model]
    alike = [cell for cell in answered if cell.blind == cell.model]
    return RereadResult(
        read=len(cells),
        unusable=sum(not cell.blind for cell in cells),
        abstained=len(compared) - len(answered),
        confusion=confusion,
        agreement=share_of([cell.blind == cell.sighted for cell in compared]),
        kappa=kappa_of(confusion),
        blind_with_model=share_of([cell.blind == cell.model for cell in answered]),
        sighted_with_model=share_of([cell.sighted == cell.model for cell in answered]),
        taken_over=share_of([cell.sighted == cell.model for cell in otherwise]),
        went_elsewhere=share_of([cell.sighted not in (cell.model, cell.blind) for cell in otherwise]),
        left_the_model=share_of([cell.sighted != cell.model for cell in alike]),
    )


def share_of(outcomes: Sequence[bool]) -> Share:
    return Share(sum(outcomes), len(outcomes))
