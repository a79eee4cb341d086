from pathlib import Path

import numpy as np
import pytest

from ml.errors import UnusableData
from ml.evaluate import Outcome, Run, clusters_right, expected_calibration_error, report
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
