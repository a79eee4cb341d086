"""How well adapting would have done: `python -m ml.adapt_trial --data DIR --labelled 100 --draws 5`.

Cells are drawn again and again from a fully labelled set, the bundle is adapted to them alone, and what was not drawn
is the test. JSON on stdout.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.adapt import FEWEST_CELLS, Opened, open_bundle, see, see_junk
from ml.conformal import conformal_sets
from ml.errors import ModelUnavailable, UnusableData
from ml.head_correction import LocalCells
from ml.local_cells import read_pictures
from ml.local_fit import Adaptation, adapt
from ml.model_card import VIEWS, shipped_bundle
from ml.predictor import softmax
from ml.progress import say
from ml.views import ONE, as_served

COMMON = 10


def trial(model: Path, data: Path, labelled: int = 100, draws: int = 5, views: int | None = None) -> dict[str, Any]:
    """Adapt to `labelled` cells of a set, drawn with its class shares, and test on the rest, `draws` times.

    Returns, JSON-ready: the mean accuracies on the rest, `zero_shot` and `adapted`, and over the classes with at least
    10 cells in the set, `zero_shot_common` and `adapted_common`; `error_left`, the share of the latter's error that
    adapting left; and `per_draw` these figures with `n`, what was `kept` with how many `views` (the argument decides
    beforehand), the accuracy `expected` by cross-validation, how calibration and gate held, and the seconds.
    Near-duplicates of drawn cells are not tested on. Raises UnusableData or ModelUnavailable.
    """
    opened = open_bundle(model)
    started = time.monotonic()
    pictures = read_pictures(data, opened.card.labels)
    refuse_unless_between(labelled, len(pictures.labels))
    cells = see(opened, pictures)
    seconds_a_cell = (time.monotonic() - started) / len(cells.labels)
    figures = drawn_again(opened, cells, labelled, draws, views)
    for draw in figures["per_draw"]:
        draw["seconds"] = round(draw["seconds"] + seconds_a_cell * labelled, 1)
    return figures


def refuse_unless_between(labelled: int, n: int) -> None:
    """Raise UnusableData unless a trial can adapt to so many of n cells."""
    if not FEWEST_CELLS <= labelled < n:
        raise UnusableData(f"A trial on {n} cells takes at least {FEWEST_CELLS} and fewer than {n} labelled ones.")


def drawn_again(
    opened: Opened, cells: LocalCells, labelled: int, draws: int, views: int | None = None
) -> dict[str, Any]:
    """Return the figures of `trial` on cells that were seen; their seconds are those of fitting alone."""
    n = len(cells.labels)
    junk = see_junk(opened)
    per_draw = []
    for seed in range(draws):
        drawn = stratified_draw(cells.labels, labelled, seed)
        seen = {cells.groups[index] for index in drawn}
        rest = np.array([index for index in range(n) if cells.groups[index] not in seen])
        if not len(rest):
            raise UnusableData("All cells of this set are alike, so none is left to test on.")
        started = time.monotonic()
        adaptation = adapt(opened.served, cells.chosen(drawn), junk, views)
        seconds = time.monotonic() - started
        per_draw.append({**tested(opened, adaptation, cells, rest), "seconds": seconds})
    names = ("zero_shot", "adapted", "zero_shot_common", "adapted_common")
    means = {name: float(np.mean([draw[name] for draw in per_draw])) for name in names}
    left = (1 - means["adapted_common"]) / max(1 - means["zero_shot_common"], 1e-9)
    return {"labelled": labelled, "draws": draws, **means, "error_left": left, "per_draw": per_draw}


def stratified_draw(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of `count` cells in which each class has its share, rounded by largest remainders."""
    random = np.random.default_rng(seed)
    names, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    taken = np.floor(exact).astype(np.int64)
    taken[np.argsort(taken - exact, kind="stable")[: count - int(taken.sum())]] += 1
    own = [random.permutation(np.flatnonzero(labels == name))[:k] for name, k in zip(names, taken, strict=True)]
    return np.sort(np.concatenate(own))


def tested(opened: Opened, adaptation: Adaptation, cells: LocalCells, rest: NDArray[np.int64]) -> dict[str, Any]:
    """Return the figures of an adaptation on the cells that it did not see."""
    names, sizes = np.unique(cells.labels, return_counts=True)
    truth, pooled = cells.labels[rest], as_served(cells.pooled[rest], adaptation.kept.views)
    is_common = np.isin(truth, names[sizes >= COMMON])
    zero_shot = opened.served.head.logits(as_served(cells.pooled[rest], ONE)).argmax(axis=1) == truth
    probabilities = softmax(adaptation.head.logits(pooled) / np.float32(adaptation.temperature))
    right = probabilities.argmax(axis=1) == truth
    familiar = adaptation.gate.scores(as_served(cells.for_gate[rest], adaptation.kept.views)) <= 1
    answered = familiar & (probabilities.max(axis=1) >= adaptation.least_confidence)
    sets = conformal_sets(probabilities, adaptation.conformal_thresholds)
    return {
        "n": len(rest),
        "zero_shot": float(zero_shot.mean()),
        "adapted": float(right.mean()),
        "n_common": int(is_common.sum()),
        "zero_shot_common": float(zero_shot[is_common].mean()),
        "adapted_common": float(right[is_common].mean()),
        "kept": "adapted head" if adaptation.kept.is_corrected else "zero-shot head",
        "views": adaptation.kept.views,
        "expected": float(adaptation.hits_kept.mean()),
        "confidence": float(probabilities.max(axis=1).mean()),
        "familiar": float(familiar.mean()),
        "answered": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else None,
        "conformal_coverage": float(np.mean([label in chosen for label, chosen in zip(truth, sets, strict=True)])),
        "conformal_mean_size": float(np.mean([len(chosen) for chosen in sets])),
        "junk_refused": adaptation.junk_refused["after"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a trial and print it; 2 with one sentence where it can't be run."""
    parser = argparse.ArgumentParser(prog="python -m ml.adapt_trial", description="How well adapting would do.")
    parser.add_argument("--model", type=Path, help="a bundle's folder (default: the shipped one)")
    parser.add_argument("--data", type=Path, required=True, help="a folder with one folder for each cell type")
    parser.add_argument("--labelled", type=int, default=100, help="cells to adapt to (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=5, help="how often to draw them (default: %(default)s)")
    parser.add_argument("--views", type=int, choices=VIEWS, help="as of `adapt` (default: the better)")
    options = parser.parse_args(arguments)
    draws = max(options.draws, 1)
    try:
        figures = trial(options.model or shipped_bundle(), options.data, options.labelled, draws, options.views)
    except (ModelUnavailable, UnusableData) as refusal:
        say(str(refusal))
        return 2
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
