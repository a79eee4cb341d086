import numpy as np
import pytest

from ml.calibrate import fit_temperature, least_confidence
from ml.evaluate import expected_calibration_error
from ml.predictor import softmax


def drawn(temperature: float, count: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (count, 5))
    labels = np.array([random.choice(5, p=p / p.sum()) for p in softmax(logits).astype(np.float64)])
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_recovered(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_calibration_lowers_the_error() -> None:
    logits, labels = drawn(3.0)
    before, after = softmax(logits), softmax(logits / fit_temperature(logits, labels))
    right = before.argmax(axis=1) == labels
    error = expected_calibration_error(after.max(axis=1), right)
    assert error < 0.03
    assert error < expected_calibration_error(before.max(axis=1), right)


def test_few_enough_are_left_unanswered() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 1, 1000)
    labels = (random.random(1000) > confidence).astype(int)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    limit = least_confidence(np.maximum(probabilities, 0), labels)
    assert (probabilities.max(axis=1) < limit).mean() <= 0.08


def test_all_are_answered_where_all_are_right() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert least_confidence(probabilities, np.array([0, 0])) == pytest.approx(0.6)
