"""What the page of a model version shows: its card, made ready to be drawn.

Cards grow: whatever an older card does not hold is left out of its page, and what can be worked out from the confusion
matrix is worked out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from classifier.active_model import bundle_of, verified_card
from classifier.charts import Axis, MatrixRow, Reliability, Whisker, axis_for, matrix_rows, reliability_of
from classifier.data_set_pictures import picture_path
from classifier.models import ModelVersion
from ml.errors import ModelUnavailable
from ml.model_card import ModelCard, read_card
from ml.prevalence import predictive_values
from ml.published import SEED_DATA_SET, PublishedResult, SeedRecipe, published_for, seed_recipe

WEAKEST_SHOWN = 5
FEWEST_TO_JUDGE = 10
PARTS = ("train", "validation", "test")
FILES_GONE = "The files of this version are not on this server. What was written down when it was registered is shown."
FILES_CHANGED = "The files of this version are not what they were when it was registered."


@dataclass(frozen=True)
class ShownModel:
    """A model version with its card, or None where the bundle is gone; `warning` says what is wrong with its files."""

    version: ModelVersion
    card: ModelCard | None
    warning: str

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        return self.card.metrics if self.card else self.version.metrics

    @property
    def training(self) -> Mapping[str, Any]:
        return self.card.training if self.card else {}

    @property
    def labels(self) -> Sequence[str]:
        return self.card.labels if self.card else self.version.labels

    @property
    def has_heat_maps(self) -> bool:
        return bool(self.training.get("heat_maps"))

    @property
    def manifest(self) -> str | None:
        """The name of the list of pictures in the bundle."""
        name = str(self.training.get("manifest", ""))
        return name if self.card and name in self.card.files and "/" not in name else None


def shown_model(version: ModelVersion) -> ShownModel:
    """Read the version's card. A bundle that is gone or was changed is told, and its card is trusted no further."""
    try:
        card = read_card(bundle_of(version))
    except ModelUnavailable:
        return ShownModel(version, None, FILES_GONE)
    try:
        verified_card(version)
    except ModelUnavailable:
        return ShownModel(version, None, FILES_CHANGED)
    return ShownModel(version, card, "")


@dataclass(frozen=True)
class ClassFigures:
    """One cell type in one data set. Fractions 0..1; None where it is not known."""

    slug: str
    n: int
    sensitivity: float
    sensitivity_low: float | None
    sensitivity_high: float | None
    ppv: float | None
    prevalence: float | None
    in_blood: float | None
    in_blood_low: float | None
    in_blood_high: float | None
    coverage: float | None


@dataclass(frozen=True)
class Mistake:
    """A picture that was called by another name; `number` is its place on the card."""

    number: int
    path: str
    label: str
    said: str
    confidence: float
    abstained: bool
    has_picture: bool


@dataclass(frozen=True)
class Comparison:
    """One line of the chart that sets our figure beside others: what is drawn, and what has to be said."""

    whisker: Whisker
    note: str = ""
    citation: str = ""
    url: str = ""
    at_least: bool = False


@dataclass(frozen=True)
class DataSet:
    """The figures of one data set, as the card has them (`figures`) and as they are drawn."""

    key: str
    figures: Mapping[str, Any]
    classes: list[ClassFigures]
    said: list[str]
    matrix: list[MatrixRow]
    reliability: Reliability | None
    mistakes: list[Mistake]
    comparisons: list[Comparison]

    @property
    def weakest(self) -> ClassFigures | None:
        """The class that is recognised worst, of those with pictures enough to tell."""
        judged = [figures for figures in self.classes if figures.n >= FEWEST_TO_JUDGE]
        return min(judged, key=lambda figures: figures.sensitivity, default=None)

    @property
    def least_covered(self) -> ClassFigures | None:
        known = [figures for figures in self.classes if figures.coverage is not None]
        return min(known, key=lambda figures: figures.coverage or 0.0, default=None)


def measured_sets(shown: ShownModel) -> dict[str, Mapping[str, Any]]:
    """The figures of the data sets of the card that have an accuracy, in its order."""
    return {key: figures for key, figures in shown.metrics.items() if "accuracy" in figures}


def data_sets_of(shown: ShownModel) -> list[DataSet]:
    """The data sets of the card, with all that is drawn of them."""
    measured = measured_sets(shown)
    compared = _compared(list(measured))
    axis = _common_axis(measured, compared)
    return [
        DataSet(
            key=key,
            figures=figures,
            classes=_classes(figures, shown.labels),
            said=list(shown.labels),
            matrix=matrix_rows(figures.get("confusion", {}), shown.labels),
            reliability=reliability_of(figures["reliability"]) if figures.get("reliability") else None,
            mistakes=_mistakes(figures.get("worst_mistakes", [])),
            comparisons=_comparisons(figures, *compared[key], axis),
        )
        for key, figures in measured.items()
    ]


def weakest_points(data_sets: Sequence[DataSet]) -> list[tuple[DataSet, ClassFigures]]:
    """The cell type that is recognised worst in each data set, the worst first."""
    found = [(each, each.weakest) for each in data_sets]
    known = [(each, weakest) for each, weakest in found if weakest is not None]
    return sorted(known, key=lambda pair: pair[1].sensitivity)[:WEAKEST_SHOWN]


def axis_of(data_sets: Sequence[DataSet]) -> Axis | None:
    """The axis that all comparisons share."""
    return next((line.whisker.axis for each in data_sets for line in each.comparisons), None)


Compared = dict[str, tuple[list[PublishedResult], SeedRecipe | None]]


def _compared(keys: Sequence[str]) -> Compared:
    """What stands beside each data set: published figures once a source, at its first set."""
    seen: set[str] = set()
    compared: Compared = {}
    for key in keys:
        source = key.split("_", 1)[0]
        compared[key] = ([] if source in seen else published_for(key), seed_recipe() if key == SEED_DATA_SET else None)
        seen.add(source)
    return compared


def _common_axis(measured: Mapping[str, Mapping[str, Any]], compared: Compared) -> Axis:
    lows: list[float | None] = [figures.get("accuracy_low", figures["accuracy"]) for figures in measured.values()]
    lows += [result.accuracy for published, _ in compared.values() for result in published]
    lows += [seed.accuracy_low for _, seed in compared.values() if seed]
    return axis_for(lows)


def _comparisons(
    figures: Mapping[str, Any], published: Sequence[PublishedResult], seed: SeedRecipe | None, axis: Axis
) -> list[Comparison]:
    own = _whisker("own", "This model", figures, "accuracy", axis)
    lines = [Comparison(own, _own_note(figures))]
    if figures.get("accuracy_answered_low") is not None:
        answered = _whisker("answered", "This model, where it answers", figures, "accuracy_answered", axis)
        lines.append(Comparison(answered, f"{figures['answered']:,} of {figures['n']:,} pictures"))
    if seed:
        whisker = Whisker("seed", "First recipe", seed.accuracy, seed.accuracy_low, seed.accuracy_high, axis)
        note = (
            f"A frozen network on the whole frame, as the project began, trained by us: {seed.originals_right} of "
            f"{seed.originals_n} photographs right; {seed.seconds:,.0f} processor seconds as written, "
            f"{seed.cached_seconds:,.0f} with features computed once."
        )
        lines.append(Comparison(whisker, note))
    for result in published:
        whisker = Whisker("published", f"Published: {result.method}", result.accuracy, None, None, axis)
        lines.append(Comparison(whisker, result.protocol, result.citation, result.url, result.at_least))
    return lines


def _whisker(kind: str, name: str, figures: Mapping[str, Any], key: str, axis: Axis) -> Whisker:
    return Whisker(kind, name, figures[key], figures.get(f"{key}_low"), figures.get(f"{key}_high"), axis)


def _own_note(figures: Mapping[str, Any]) -> str:
    words = [f"{figures['n']:,} pictures"]
    originals = figures.get("originals")
    if originals:
        words.append(f"{originals['right']} of {originals['n']} photographs right by the mean of their pictures")
    if figures.get("clusters_total"):
        words.append(f"interval by bootstrap over {figures['clusters_total']} groups (slides, photographs)")
    return "; ".join(words)


def _classes(figures: Mapping[str, Any], labels: Sequence[str]) -> list[ClassFigures]:
    per_class: Mapping[str, Mapping[str, Any]] = figures.get("per_class", {})
    known = [slug for slug in labels if slug in per_class]
    if any("ppv_at_prevalence" not in per_class[slug] for slug in known):
        per_class = _with_values_in_blood(per_class, figures.get("confusion", {}))
    return [
        ClassFigures(
            slug=slug,
            n=own["n"],
            sensitivity=own["sensitivity"],
            sensitivity_low=own.get("sensitivity_low"),
            sensitivity_high=own.get("sensitivity_high"),
            ppv=own.get("ppv"),
            prevalence=own["prevalence"],
            in_blood=own["ppv_at_prevalence"],
            in_blood_low=own["ppv_at_prevalence_low"],
            in_blood_high=own["ppv_at_prevalence_high"],
            coverage=own.get("conformal_coverage"),
        )
        for slug, own in ((slug, per_class[slug]) for slug in known)
    ]


def _with_values_in_blood(
    per_class: Mapping[str, Mapping[str, Any]], confusion: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Any]]:
    """The figures of a card that does not hold the predictive values in blood, with them."""
    values = predictive_values(confusion)
    filled = {}
    for slug, own in per_class.items():
        value = values.get(slug)
        filled[slug] = {
            **own,
            "prevalence": value.prevalence if value else None,
            "ppv_at_prevalence": value.ppv if value else None,
            "ppv_at_prevalence_low": value.low if value else None,
            "ppv_at_prevalence_high": value.high if value else None,
        }
    return filled


def _mistakes(listed: Sequence[Mapping[str, Any]]) -> list[Mistake]:
    return [
        Mistake(
            number=number,
            path=str(each["path"]),
            label=each["label"],
            said=each["said"],
            confidence=each["confidence"],
            abstained=bool(each.get("abstained")),
            has_picture=picture_path(str(each["path"])) is not None,
        )
        for number, each in enumerate(listed)
    ]


def listed_mistake(shown: ShownModel, data_set: str, number: int) -> str | None:
    """The path of a mistake that the card lists; None for any other."""
    listed = shown.metrics.get(data_set, {}).get("worst_mistakes", [])
    return str(listed[number]["path"]) if number < len(listed) else None


@dataclass(frozen=True)
class GateRow:
    """How many of some pictures that show no cell got no class."""

    name: str
    n: int
    refused: float
    low: float | None
    high: float | None


def gate_rows(shown: ShownModel) -> list[GateRow]:
    """How the gate did on pictures that hold no cell: in all, and by kind; nothing where the card does not say.

    The card's key `junk` (of its training, or of its metrics) holds `n` and `refused`, a number of pictures or a
    fraction, with `refused_low` and `refused_high` where they are known; `kinds` maps a kind of picture to the same.
    """
    junk = shown.training.get("junk") or shown.metrics.get("junk")
    if not junk or "refused" not in junk:
        return []
    kinds: Mapping[str, Mapping[str, Any]] = junk.get("kinds", {})
    return [_gate_row("All of them", junk), *(_gate_row(name.replace("_", " "), own) for name, own in kinds.items())]


def _gate_row(name: str, figures: Mapping[str, Any]) -> GateRow:
    n, refused = int(figures["n"]), figures["refused"]
    share = refused / max(1, n) if isinstance(refused, int) else float(refused)
    return GateRow(name, n, share, figures.get("refused_low"), figures.get("refused_high"))


def split_rows(shown: ShownModel) -> list[tuple[str, list[int]]]:
    """(source, number of pictures to train on, to validate with, to test with)."""
    sources: Mapping[str, Mapping[str, int]] = shown.training.get("sources", {})
    return [(source, [counts.get(part, 0) for part in PARTS]) for source, counts in sources.items()]


def recipe_rows(shown: ShownModel) -> list[tuple[str, str]]:
    """(name, value) of everything that the recipe fixes."""
    recipe: Mapping[str, Any] = shown.training.get("recipe", {})
    return [(name.replace("_", " "), _in_words(value)) for name, value in recipe.items()]


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(own)}" for name, own in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(own) for own in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
