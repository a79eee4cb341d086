from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ml.dataset import read_class_folders
from ml.errors import UnreadableImage
from ml.predictor import CellPrediction, LiteRTPredictor, softmax

from .smears import draw_cell, draw_field, encoded


def prediction_of(predictor: LiteRTPredictor, image: bytes) -> CellPrediction:
    return predictor.predict([predictor.prepare(image)])[0]


def is_consistent(prediction: CellPrediction) -> bool:
    total = sum(prediction.probabilities.values())
    best = max(prediction.probabilities, key=lambda label: prediction.probabilities[label])
    return (
        abs(total - 1) < 1e-4
        and prediction.confidence == prediction.probabilities[best]
        and best in prediction.conformal_set
        and prediction.suggestion in {best, None}
        and prediction.abstained == (prediction.label is None) == (prediction.reason_code is not None)
        and (prediction.reason is None) == (prediction.reason_code is None)
        and prediction.duration_ms > 0
    )


def test_real_cells_of_every_class_are_mostly_right(predictor: LiteRTPredictor, data: Path) -> None:
    pictures = read_class_folders(data / "pbc")
    for label in predictor.card.labels:
        own = [path for path, name in pictures if name == label][::110]
        predictions = predictor.predict([predictor.prepare(path.read_bytes()) for path in own])
        assert all(is_consistent(prediction) for prediction in predictions)
        right = sum(prediction.suggestion == label for prediction in predictions)
        assert right >= 0.8 * len(own), label


def test_a_drawn_cell_gets_a_whole_answer(predictor: LiteRTPredictor) -> None:
    prediction = prediction_of(predictor, encoded(draw_cell()))
    assert is_consistent(prediction)
    assert tuple(prediction.probabilities) == predictor.card.labels
    assert prediction.box is None


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 17])
def test_any_batch_size_gives_what_one_alone_gives(predictor: LiteRTPredictor, count: int) -> None:
    prepared = [predictor.prepare(encoded(draw_cell(seed=seed))) for seed in range(count)]
    together = predictor.predict(prepared)
    assert len(together) == count
    for cell, prediction in zip(prepared[::3], together[::3], strict=True):
        alone = predictor.predict([cell])[0]
        assert np.allclose(list(alone.probabilities.values()), list(prediction.probabilities.values()), atol=1e-4)


def test_pictures_are_prepared_in_many_threads(predictor: LiteRTPredictor) -> None:
    images = [encoded(draw_field(320, 240, [(60 + 8 * seed, 100, 60)], seed)) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(predictor.prepare, images))
    for image, prepared in zip(images, threaded, strict=True):
        assert np.array_equal(predictor.prepare(image).pixels, prepared.pixels)


def test_heat_map_is_never_blank_and_never_the_same_for_every_picture(predictor: LiteRTPredictor, data: Path) -> None:
    pictures = [path for path, _ in read_class_folders(data / "pbc")][::400]
    peaks = []
    for prediction in predictor.predict([predictor.prepare(path.read_bytes()) for path in pictures]):
        if prediction.heat_map is None:
            continue
        assert prediction.heat_map.dtype == np.float32
        assert prediction.heat_map.ndim == 2
        assert prediction.heat_map.min() >= 0
        assert prediction.heat_map.max() == 1
        assert prediction.heat_map.std() > 0.01
        peaks.append(int(prediction.heat_map.argmax()))
    assert not peaks or len(set(peaks)) > 1


def test_the_box_is_in_pixels_of_the_given_picture(predictor: LiteRTPredictor) -> None:
    prediction = prediction_of(predictor, encoded(draw_field(640, 480, [(500, 300, 130)])))
    assert prediction.box is not None
    left, top, right, bottom = prediction.box
    assert left < 500 < right <= 640
    assert top < 300 < bottom <= 480


def test_a_field_without_white_cell_gets_no_class(predictor: LiteRTPredictor) -> None:
    prediction = prediction_of(predictor, encoded(draw_field(640, 480, [])))
    assert prediction.label is None
    assert prediction.suggestion is None
    assert prediction.heat_map is None
    assert prediction.reason_code in {"no_leukocyte", "not_a_cell"}
    assert prediction.reason is not None
    assert prediction.reason.startswith("This does not look like the images the model was tested on (")
    assert prediction.reason.endswith("No class is given.")


def test_a_field_with_several_is_left_to_the_reviewer(predictor: LiteRTPredictor) -> None:
    prediction = prediction_of(predictor, encoded(draw_field(640, 480, [(150, 200, 120), (450, 250, 130)])))
    assert prediction.abstained
    assert prediction.label is None


def test_every_leukocyte_of_a_field_is_classified(predictor: LiteRTPredictor) -> None:
    places = [(150, 200, 120), (450, 250, 130), (300, 380, 90)]
    field = prediction_of(predictor, encoded(draw_field(640, 480, places)))
    assert len(field.leukocytes) == 3
    for x, y, _ in places:
        assert any(f.box[0] < x < f.box[2] and f.box[1] < y < f.box[3] for f in field.leukocytes)
    for found in field.leukocytes:
        assert (found.label is None) == (found.reason_code is not None) == (found.reason is not None)
        assert found.suggestion in {*predictor.card.labels, None}
        assert found.label in {found.suggestion, None}
        assert 0 < found.confidence <= 1
        assert found.reason_code != "several_leukocytes"


def test_a_lone_leukocyte_is_listed_with_the_answer_of_the_picture(predictor: LiteRTPredictor) -> None:
    field = prediction_of(predictor, encoded(draw_field(640, 480, [(500, 300, 130)])))
    (found,) = field.leukocytes
    assert (found.label, found.suggestion, found.confidence) == (field.label, field.suggestion, field.confidence)
    assert (found.reason_code, found.reason) == (field.reason_code, field.reason)


def test_fields_and_cells_in_one_batch_get_what_each_gets_alone(predictor: LiteRTPredictor) -> None:
    fields = [
        [(150, 200, 120), (450, 250, 130)],
        [],
        [(300, 240, 120)],
        [(150, 200, 110), (450, 150, 120), (400, 380, 90)],
    ]
    pictures = [encoded(draw_field(640, 480, places, seed)) for seed, places in enumerate(fields)]
    prepared = [predictor.prepare(picture) for picture in (*pictures, encoded(draw_cell()))]
    together = predictor.predict(prepared)
    assert [len(prediction.leukocytes) for prediction in together] == [2, 0, 1, 3, 0]
    for cell, prediction in zip(prepared, together, strict=True):
        alone = predictor.predict([cell])[0]
        assert [f.box for f in alone.leukocytes] == [f.box for f in prediction.leukocytes]
        pairs = zip(alone.leukocytes, prediction.leukocytes, strict=True)
        assert all(abs(a.confidence - b.confidence) < 1e-4 for a, b in pairs)
        assert np.allclose(list(alone.probabilities.values()), list(prediction.probabilities.values()), atol=1e-4)


def test_an_unreadable_file_is_refused(predictor: LiteRTPredictor) -> None:
    with pytest.raises(UnreadableImage):
        predictor.prepare(b"not a picture")


def junk() -> dict[str, np.ndarray]:
    """Pictures that are no cells."""
    random = np.random.default_rng(3)
    rows = np.linspace(0, 255, 224)
    checks = (np.indices((224, 224)) // 16).sum(axis=0) % 2 * 255
    return {
        "noise": random.integers(0, 256, (224, 224, 3)),
        "white": np.full((224, 224, 3), 255),
        "black": np.zeros((224, 224, 3)),
        "red": np.full((224, 224, 3), (200, 30, 30)),
        "gradient": np.repeat(np.tile(rows, (224, 1))[..., None], 3, axis=2),
        "checks": np.repeat(checks[..., None], 3, axis=2),
    }


@pytest.mark.parametrize("name", sorted(junk()))
def test_junk_gets_no_class(predictor: LiteRTPredictor, name: str) -> None:
    prediction = prediction_of(predictor, encoded(np.asarray(junk()[name], np.uint8)))
    assert prediction.label is None
    assert prediction.ood_score > 1


def test_in_domain_cells_pass_the_gate(predictor: LiteRTPredictor, data: Path) -> None:
    pictures = [path for source in ("pbc", "raabin") for path, _ in read_class_folders(data / source)][::110]
    predictions = predictor.predict([predictor.prepare(path.read_bytes()) for path in pictures])
    assert sum(prediction.ood_score > 1 for prediction in predictions) <= 0.03 * len(predictions)


def test_softmax_is_stable() -> None:
    assert np.allclose(softmax(np.array([[1000.0, 1000.0]])), 0.5)
