"""The white cells that were found in a field, as the page draws and lists them."""

from dataclasses import dataclass

from classifier.models import Prediction
from ml.labels import display_name

SHORT_NAMES = {"immature_granulocyte": "IG", "band_neutrophil": "BAND", "platelet": "PLT"}
LETTER_WIDTH = 0.58  # of its height, on average


@dataclass(frozen=True)
class FoundCell:
    """One found white cell. `outline` is an SVG path in pixels of the picture, `text_x`, `text_y` and `anchor` (an SVG
    `text-anchor`) place its caption, and `slug` is empty where the model gives no class.
    """

    number: int
    slug: str
    suggestion: str
    confidence: float
    reason: str
    outline: str
    caption: str
    text_x: int
    text_y: int
    anchor: str


def caption(number: int, slug: str | None, width: int, size: int) -> str:
    """The number and the cell type, in short where the name is wider than the box: neighbours' names stay apart."""
    if not slug:
        return f"{number} ?"
    whole = f"{number} {display_name(slug)}"
    if len(whole) * LETTER_WIDTH * size <= width:
        return whole
    return f"{number} {SHORT_NAMES.get(slug, slug[:3].upper())}"


def caption_size(width: int, height: int) -> int:
    """The height of a caption, in pixels of a picture of that size."""
    return max(8, round(max(width, height) * 0.035))


def found_cells(prediction: Prediction, width: int, height: int) -> list[FoundCell]:
    """The found cells of a picture of that size, the most strongly stained first. Captions stay within the picture."""
    size = caption_size(width, height)
    cells = []
    for number, found in enumerate(prediction.leukocytes, start=1):
        left, top, right, bottom = found["box"]
        is_left = left + right < width
        cells.append(
            FoundCell(
                number=number,
                slug=found["label"] or "",
                suggestion=found["suggestion"] or "",
                confidence=found["confidence"],
                reason=found["reason"] or "",
                outline=f"M{left} {top}H{right}V{bottom}H{left}Z",
                caption=caption(number, found["label"], right - left, size),
                text_x=left if is_left else right,
                text_y=top - size // 4 if top > size * 5 // 4 else min(bottom + size, height - size // 4),
                anchor="start" if is_left else "end",
            )
        )
    return cells
