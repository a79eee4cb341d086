"""The PDF's fonts: DejaVu Sans, cut to Latin, Greek, Cyrillic, Armenian and Georgian letters (fonts/LICENSE)."""

import unicodedata
from pathlib import Path

from reportlab.lib.fonts import addMapping
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

FOLDER = Path(__file__).parent / "fonts"
REGULAR, BOLD = "ReportSans", "ReportSans-Bold"
NO_GLYPH = "□"
NOT_PRINTED = (
    f"{NO_GLYPH} stands for a character that this font does not have; the report's page and its FHIR file show it."
)


def register() -> frozenset[int]:
    """Make the fonts known to reportlab. Returns the code points that they can print."""
    faces = {}
    for name, file in ((REGULAR, "DejaVuSans.ttf"), (BOLD, "DejaVuSans-Bold.ttf")):
        font = TTFont(name, str(FOLDER / file))
        pdfmetrics.registerFont(font)
        faces[name] = frozenset(font.face.charToGlyph)
    for bold in (0, 1):
        for italic in (0, 1):
            addMapping(REGULAR, bold, italic, BOLD if bold else REGULAR)
    return faces[REGULAR] & faces[BOLD]


GLYPHS = register()


def printable(text: str) -> str:
    """The text as the fonts can print it: composed, without control characters, and a box where there is no glyph."""
    shown = []
    for character in unicodedata.normalize("NFC", text).replace("\t", " "):
        if character == "\n" or unicodedata.category(character) not in {"Cc", "Cf"}:
            shown.append(character if character == "\n" or ord(character) in GLYPHS else NO_GLYPH)
    return "".join(shown)
