"""What a training run does, apart from the code that does it: readable without TensorFlow."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """What a training run does. `source_weights` is the share of each source in a batch."""

    steps: int = 2000
    batch: int = 32
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    warm_up: int = 200
    ema: float = 0.995
    label_smoothing: float = 0.05
    mild_share: float = 0.2
    seed: int = 7
    check_every: int = 400
    source_weights: tuple[tuple[str, float], ...] = (("pbc", 0.5), ("raabin", 0.3), ("kaggle", 0.2))

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values."""
        return {**asdict(self), "source_weights": dict(self.source_weights)}
