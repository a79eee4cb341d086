"""What a training run does, apart from the code that does it: readable without TensorFlow."""

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A part of a run: so many optimizer steps on pictures of `size` px; `source_weights` is the share of each source
    in a batch.
    """

    size: int
    steps: int
    source_weights: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Recipe:
    """What a training run does.

    Small pictures first: most is learnt there at half the price (progressive resizing; Tan and Le 2021, ICML). The
    Kaggle photographs come late, since their colours teach what does not hold on other microscopes; their stains are
    borrowed from the beginning.
    `cells_dropped` is the share of the feature map's cells that a training step hides, so that the network can't gather
    its evidence in one of them. `stain_borrowed` is the share of strong views that wear another picture's stain.
    """

    stages: tuple[Stage, ...] = (
        Stage(112, 3000, (("pbc", 0.6), ("raabin", 0.4))),
        Stage(150, 2400, (("pbc", 0.45), ("raabin", 0.35), ("kaggle", 0.2))),
    )
    batch: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    warm_up: int = 200
    ema: float = 0.995
    label_smoothing: float = 0.02
    mild_share: float = 0.2
    cells_dropped: float = 0.35
    stain_borrowed: float = 0.5
    seed: int = 7
    check_every: int = 300

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def with_steps(self, steps: int) -> "Recipe":
        """The same recipe with about so many steps in all, shared out as before, at least one a stage."""
        share = steps / self.steps
        return replace(
            self, stages=tuple(replace(stage, steps=max(1, round(stage.steps * share))) for stage in self.stages)
        )

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values."""
        return {**asdict(self), "steps": self.steps}
