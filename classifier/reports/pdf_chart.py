"""The bar chart in the PDF: bars in the cell types' colours, whiskers for the limits, reference ranges behind."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reportlab.graphics.shapes import Drawing, Line, Rect, String
from reportlab.lib.colors import Color, HexColor

from classifier.reports.fonts import BOLD, REGULAR
from classifier.reports.words import figure, name_of

# Okabe-Ito, as on the pages.
COLOURS = {
    "neutrophil": "#0072b2",
    "band_neutrophil": "#0072b2",
    "lymphocyte": "#d55e00",
    "monocyte": "#009e73",
    "eosinophil": "#e69f00",
    "basophil": "#aa4499",
    "immature_granulocyte": "#56b4e9",
    "erythroblast": "#a58800",
}
OTHER = "#7a828e"
INK, QUIET, GRID, BAND = HexColor("#18212d"), HexColor("#505c6c"), HexColor("#d9dee6"), HexColor("#e4e8ee")
NAMES_WIDTH, FIGURES_WIDTH = 112.0, 64.0
ROW, AXIS = 19.0, 20.0
CAP = 3.0


def colour_of(label: str) -> Color:
    return HexColor(COLOURS.get(label, OTHER))


def axis_end(cells: Sequence[Mapping[str, Any]]) -> int:
    """The end of the axis in percent: the next ten above every limit and range, at least 10 and at most 100."""
    ends = [cell[name] or 0 for cell in cells for name in ("percent", "high", "range_high")]
    return min(100, max(10, 10 * math.ceil(max(ends, default=0) / 10)))


def differential_chart(cells: Sequence[Mapping[str, Any]], width: float) -> Drawing:
    """A row a cell type. Only shares that exist are drawn; the figures stand beside the bars."""
    height = AXIS + ROW * len(cells)
    drawing = Drawing(width, height)
    end = axis_end(cells)
    left, span = NAMES_WIDTH, width - NAMES_WIDTH - FIGURES_WIDTH

    def place(percent: float) -> float:
        return left + span * min(end, max(0.0, percent)) / end

    for tick in range(0, end + 1, 10 if end > 20 else 5):
        x = place(tick)
        drawing.add(Line(x, AXIS, x, height, strokeColor=GRID, strokeWidth=0.5))
        words = f"{tick} %" if tick in (0, end) else str(tick)
        drawing.add(String(x, 7, words, fontName=REGULAR, fontSize=7, fillColor=QUIET, textAnchor="middle"))
    for row, cell in enumerate(cells):
        bottom = height - ROW * (row + 1)
        draw_row(drawing, cell, bottom, place)
        drawing.add(String(0, bottom + 6, name_of(cell["label"]), fontName=REGULAR, fontSize=8.5, fillColor=INK))
        if cell["percent"] is not None:
            words = f"{figure(cell['percent'])} %" + (f"  {cell['flag']}" if cell["flag"] else "")
            font = BOLD if cell["flag"] else REGULAR
            drawing.add(String(left + span + 10, bottom + 6, words, fontName=font, fontSize=8.5, fillColor=INK))
    return drawing


def draw_row(drawing: Drawing, cell: Mapping[str, Any], bottom: float, place: Any) -> None:
    low, high = cell["range_low"], cell["range_high"]
    if low is not None or high is not None:
        start, stop = place(low or 0), place(100 if high is None else high)
        drawing.add(Rect(start, bottom + 1, stop - start, ROW - 2, fillColor=BAND, strokeColor=None))
    if cell["percent"] is None:
        return
    start, stop, middle = place(0), place(cell["percent"]), bottom + ROW / 2
    colour = colour_of(cell["label"])
    reviewed = start + (stop - start) * (cell["reviewed"] / cell["n"] if cell["n"] else 0)
    drawing.add(Rect(start, middle - 4, reviewed - start, 8, fillColor=colour, strokeColor=None))
    if reviewed < stop:
        dashed = {"fillColor": None, "strokeColor": colour, "strokeWidth": 1, "strokeDashArray": [3, 2]}
        drawing.add(Rect(reviewed, middle - 4, stop - reviewed, 8, **dashed))
    ends = [place(cell["low"]), place(cell["high"])]
    drawing.add(Line(ends[0], middle, ends[1], middle, strokeColor=INK, strokeWidth=1))
    for x in ends:
        drawing.add(Line(x, middle - CAP, x, middle + CAP, strokeColor=INK, strokeWidth=1))
