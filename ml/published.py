"""The best published figures to read ours beside, and the seed's recipe as we ran it. Standard library only.

Each figure was checked against the abstract of its paper. They are not a league table: no two were measured on the same
pictures, and `protocol` says what differs. Left out because they could not be checked: the fine-tuned network of the
authors of PBC (only its frozen features are here), the deep networks of the authors of Raabin-WBC, and any figure on
JTSC (Zheng et al. 2018, Micron 107:55, is a paper on segmentation).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ml.model_card import ARTIFACTS

SEED_RECIPE_FILE = "seed_recipe.json"
SEED_DATA_SET = "kaggle_test"


@dataclass(frozen=True)
class PublishedResult:
    """One published accuracy (a fraction 0..1). `source` is the first word of our data sets' names: pbc, raabin, ...

    `at_least` marks a bound that the authors give in place of a figure. `protocol` says what differs from ours.
    """

    source: str
    method: str
    accuracy: float
    citation: str
    url: str
    protocol: str
    at_least: bool = False


@dataclass(frozen=True)
class SeedRecipe:
    """The seed's recipe, trained by us as it was written, on Kaggle TEST: `n` files of `originals_n` photographs.

    `seconds` is the processor time of a training as written, `cached_seconds` that of one on features computed once.
    """

    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    originals_n: int
    originals_right: int
    seconds: float
    cached_seconds: float


PUBLISHED: tuple[PublishedResult, ...] = (
    PublishedResult(
        "pbc",
        "ensemble of the best of 27 fine-tuned networks",
        0.9951,
        "Gavas and Olpadkar 2021, Deep CNNs for Peripheral Blood Cell Classification",
        "https://arxiv.org/abs/2110.09508",
        "Several networks together, where ours is one. The abstract does not say how the pictures were split; "
        "ours keeps near-duplicates on one side.",
    ),
    PublishedResult(
        "pbc",
        "best of eight fine-tuned networks, MobileNetV2 among them",
        0.9472,
        "Asghar et al. 2023, Classification of All Blood Cell Images using ML and DL Models",
        "https://arxiv.org/abs/2308.06300",
        "One network, as here, but ten classes. The abstract does not say how the pictures were split. The authors' "
        "own network is given as 99.91 %.",
    ),
    PublishedResult(
        "pbc",
        "Inception v3 features with a support vector machine",
        0.90,
        "Acevedo et al. 2019, Comput Methods Programs Biomed 180:105020",
        "https://doi.org/10.1016/j.cmpb.2019.105020",
        "By the authors of the set, on all of its 17,092 pictures, with a network that was not trained on them.",
    ),
    PublishedResult(
        "raabin",
        "hand-made features with a support vector machine",
        0.9465,
        "Tavakoli et al. 2021, New Segmentation and Feature Extraction Algorithm for Classification of White Blood "
        "Cells in Peripheral Smear Images, bioRxiv",
        "https://doi.org/10.1101/2021.04.29.441751",
        "The abstract does not say that whole slides were held out; ours are slides that the model has never seen.",
    ),
    PublishedResult(
        "kaggle",
        "DenseNet121",
        0.9884,
        "Sharma et al. 2022, Comput Intell Neurosci 2022:7384131",
        "https://doi.org/10.1155/2022/7384131",
        "12,444 augmented files counted as if each were a cell of its own. Like most figures on this set it does not "
        "say that copies of one photograph were kept on one side of the split, so they may leak. Ours keeps them so; "
        "only 71 photographs are behind the TEST files.",
    ),
    PublishedResult(
        "jtsc",
        "EfficientNet, fine-tuned with at most 100 labelled local cells",
        0.90,
        "Chossegros et al. 2024, J Pathol Inform 15:100405",
        "https://doi.org/10.1016/j.jpi.2024.100405",
        "Above 90 % on more than half of eight sets from elsewhere and above 80 % on each, after fine-tuning with "
        "local labels and a colour transform. Ours is without any local label, on a set that may not be among theirs.",
        at_least=True,
    ),
)


def published_for(data_set: str) -> list[PublishedResult]:
    """Return what was published on a data set of a card (`pbc_test`, `kaggle_test_simple`), the best first."""
    source = data_set.split("_", 1)[0]
    return sorted((result for result in PUBLISHED if result.source == source), key=lambda result: -result.accuracy)


def seed_recipe(folder: Path = ARTIFACTS) -> SeedRecipe | None:
    """Return the figures of the seed's recipe, or None where they were not measured or can't be read."""
    try:
        values = json.loads((folder / SEED_RECIPE_FILE).read_text(encoding="utf-8"))
        return SeedRecipe(
            n=int(values["n"]),
            accuracy=float(values["accuracy"]),
            accuracy_low=float(values["accuracy_low"]),
            accuracy_high=float(values["accuracy_high"]),
            originals_n=int(values["originals"]["n"]),
            originals_right=int(values["originals"]["right"]),
            seconds=float(values["seconds"]),
            cached_seconds=float(values["cached_seconds"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
