import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml.errors import UnusableData
from ml.evaluate import Outcome, Run, clusters_right, expected_calibration_error, reliability, report
from ml.intervals import clustered, wilson
from ml.predictor import CellPrediction


def outcome(number: int, label: str, said: dict[str, float], code: str | None = None) -> Outcome:
    best = max(said, key=lambda name: said[name])
    prediction = CellPrediction(
        label=None if code else best,
        suggestion=best,
        confidence=said[best],
        probabilities=said,
        conformal_set=(best,),
        abstained=code is not None,
        reason_code=code,
        reason=None,
        ood_score=0.5,
        box=None,
        heat_map=None,
        duration_ms=1.0,
    )
    return Outcome(Path(f"{number}.png"), label, prediction)


@pytest.fixture
def outcomes() -> Run:
    return Run(
        [
            outcome(0, "monocyte", {"monocyte": 0.8, "lymphocyte": 0.1, "platelet": 0.1}),
            outcome(1, "monocyte", {"monocyte": 0.3, "lymphocyte": 0.2, "platelet": 0.5}, "not_sure"),
            outcome(2, "lymphocyte", {"monocyte": 0.1, "lymphocyte": 0.9, "platelet": 0.0}),
            outcome(3, "lymphocyte", {"monocyte": 0.95, "lymphocyte": 0.05, "platelet": 0.0}, "unfamiliar_microscope"),
        ],
        [Path("bad.png")],
        10.0,
    )


def test_figures_are_what_they_say(outcomes: Run) -> None:
    figures = report(outcomes)
    assert figures["n"] == 4
    assert figures["unreadable"] == 1
    assert figures["accuracy"] == 0.5
    assert figures["accuracy_low"] < 0.5 < figures["accuracy_high"]
    assert figures["accuracy_restricted"] == 0.75
    assert figures["accuracy_answered"] == 1.0
    assert figures["abstained"] == 0.5
    assert figures["ood_refused"] == 0.25
    assert figures["abstained_by_reason"] == {"not_sure": 0.25, "unfamiliar_microscope": 0.25}
    assert figures["conformal_coverage"] == 0.5
    assert figures["conformal_mean_size"] == 1.0
    assert figures["confusion"] == {
        "lymphocyte": {"lymphocyte": 1, "monocyte": 1},
        "monocyte": {"monocyte": 1, "platelet": 1},
    }
    assert figures["per_class"]["monocyte"]["sensitivity"] == 0.5
    assert figures["per_class"]["monocyte"]["ppv"] == 0.5
    assert figures["macro_f1"] == pytest.approx((2 * 1 / 4 + 2 * 1 / 3) / 2)
    assert figures["answered"] == 2
    assert (figures["accuracy_answered_low"], figures["accuracy_answered_high"]) == wilson(2, 2)
    assert figures["conformal_coverage_least"] == {"label": "lymphocyte", "n": 2, "conformal_coverage": 0.5}
    monocyte = figures["per_class"]["monocyte"]
    assert (monocyte["conformal_coverage_low"], monocyte["conformal_coverage_high"]) == wilson(1, 2)
    # 30 : 7 among the two that are there; half of each is called monocyte.
    assert monocyte["prevalence"] == pytest.approx(0.07 / 0.37)
    assert monocyte["ppv_at_prevalence"] == pytest.approx(0.07 / 0.37)
    assert monocyte["ppv_at_prevalence_low"] < 0.07 / 0.37 < monocyte["ppv_at_prevalence_high"]


def test_figures_can_be_written_as_json_and_stay_small(outcomes: Run) -> None:
    many = replace(
        outcomes, outcomes=[replace(o, path=Path(f"{i}.png")) for i in range(500) for o in outcomes.outcomes]
    )
    clusters = {o.path: f"slide {number % 90}" for number, o in enumerate(many.outcomes)}
    assert len(json.dumps(report(many, clusters))) < 12_000


def test_clusters_are_listed_the_largest_first_and_give_the_intervals(outcomes: Run) -> None:
    clusters = dict(zip([o.path for o in outcomes.outcomes], ["a", "b", "b", "b"], strict=True))
    figures = report(outcomes, clusters)
    assert figures["clusters_total"] == 2
    assert figures["clusters"] == [{"name": "b", "n": 3, "right": 1}, {"name": "a", "n": 1, "right": 1}]
    right = np.array([True, False, True, False])
    assert (figures["accuracy_low"], figures["accuracy_high"]) == clustered(right, ["a", "b", "b", "b"])
    # The two that are answered are of two clusters, and both right.
    assert (figures["accuracy_answered_low"], figures["accuracy_answered_high"]) == wilson(2, 2)


def test_only_the_40_largest_clusters_are_listed(outcomes: Run) -> None:
    run = replace(outcomes, outcomes=[replace(outcomes.outcomes[0], path=Path(f"{i}.png")) for i in range(60)])
    figures = report(run, {o.path: o.path.name for o in run.outcomes})
    assert figures["clusters_total"] == 60
    assert len(figures["clusters"]) == 40


def test_nothing_answered_has_no_accuracy(outcomes: Run) -> None:
    figures = report(replace(outcomes, outcomes=[outcomes.outcomes[1], outcomes.outcomes[3]]))
    assert figures["answered"] == 0
    assert figures["accuracy_answered"] is figures["accuracy_answered_low"] is figures["accuracy_answered_high"] is None


def test_worst_mistakes_are_the_most_confident_and_those_not_withheld_first(tmp_path: Path) -> None:
    def at(place: str, said: dict[str, float], code: str | None = None) -> Outcome:
        return replace(outcome(0, "monocyte", said, code), path=tmp_path / place)

    run = Run(
        [
            at("set/monocyte/right.png", {"monocyte": 0.9, "platelet": 0.1}),
            at("set/monocyte/mild.png", {"monocyte": 0.4, "platelet": 0.6}),
            at("set/monocyte/withheld.png", {"monocyte": 0.01, "platelet": 0.99}, "not_sure"),
            at("set/monocyte/bold.png", {"monocyte": 0.02, "platelet": 0.98}),
        ],
        [],
        1.0,
    )
    mistakes = report(run, root=tmp_path)["worst_mistakes"]
    assert [mistake["path"] for mistake in mistakes] == [
        "set/monocyte/bold.png",
        "set/monocyte/mild.png",
        "set/monocyte/withheld.png",
    ]
    assert mistakes[0] == {
        "path": "set/monocyte/bold.png",
        "label": "monocyte",
        "said": "platelet",
        "confidence": 0.98,
        "abstained": False,
    }
    assert mistakes[2]["abstained"]
    assert report(run)["worst_mistakes"][0]["path"] == "bold.png"


def test_no_mistake_tells_where_the_pictures_lie(outcomes: Run, tmp_path: Path) -> None:
    moved = replace(outcomes, outcomes=[replace(o, path=tmp_path / o.path) for o in outcomes.outcomes])
    text = json.dumps([report(moved), report(moved, root=tmp_path / "elsewhere")])
    assert str(tmp_path) not in text


def test_reliability_has_the_bins_of_the_calibration_error() -> None:
    random = np.random.default_rng(3)
    confidence = np.append(random.random(500), [0.0, 1.0])
    right = random.random(502) < confidence
    diagram = reliability(confidence, right)
    assert len(diagram) == 15
    assert sum(part["n"] for part in diagram) == 502
    filled = [part for part in diagram if part["n"]]
    assert all(part["low"] <= part["confidence"] <= part["high"] for part in filled)
    gaps = sum(part["n"] * abs(part["accuracy"] - part["confidence"]) for part in filled) / 502
    assert gaps == pytest.approx(expected_calibration_error(confidence, right))


def test_an_empty_bin_has_no_accuracy() -> None:
    assert reliability(np.array([0.99]), np.array([True]))[0]["accuracy"] is None


def test_originals_are_counted_by_their_mean(outcomes: Run) -> None:
    clusters = {o.path: o.label for o in outcomes.outcomes}
    assert clusters_right(outcomes, clusters) == {"n": 2, "right": 1}


def test_nothing_readable_is_no_result() -> None:
    with pytest.raises(UnusableData, match="None of the pictures"):
        report(Run([], [Path("bad.png")], 1.0))


def test_calibration_error_is_zero_for_the_honest_and_large_for_the_boastful() -> None:
    right = np.arange(1000) < 700
    assert expected_calibration_error(np.full(1000, 0.7), right) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(np.full(1000, 1.0), right) == pytest.approx(0.3)
