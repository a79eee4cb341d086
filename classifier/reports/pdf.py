"""A report as a PDF on A4, drawn from the payload alone: the same payload and standing give the same bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor, white
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    KeepTogether,
    PageBreak,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from classifier.reports.fonts import BOLD, NO_GLYPH, NOT_PRINTED, REGULAR, printable
from classifier.reports.page import facts_of
from classifier.reports.pdf_chart import BAND, GRID, INK, QUIET, colour_of, differential_chart
from classifier.reports.standing import Standing
from classifier.reports.words import (
    BASES,
    SAMPLING_ONLY,
    STANDINGS,
    count_figure,
    figure,
    flag_words,
    limits_words,
    name_of,
    range_words,
    review_words,
    ribbon_words,
    signed_utc,
)

MARGIN, HEAD, FOOT = 18 * mm, 22 * mm, 16 * mm
WIDTH = A4[0] - 2 * MARGIN
GOOD, WARN = HexColor("#1c6b45"), HexColor("#7a4b00")
WARN_SOFT = HexColor("#fdf4e0")
IN_FORCE = {Standing.CURRENT, Standing.BEING_AMENDED}

TEXT = ParagraphStyle("text", fontName=REGULAR, fontSize=9, leading=12.5, textColor=INK, splitLongWords=1)
SMALL = ParagraphStyle("small", parent=TEXT, fontSize=7.5, leading=10.5, textColor=QUIET)
TITLE = ParagraphStyle("title", parent=TEXT, fontName=BOLD, fontSize=16, leading=20)
HEADING = ParagraphStyle(
    "heading", parent=TEXT, fontName=BOLD, fontSize=10.5, leading=14, spaceBefore=9, spaceAfter=3, keepWithNext=1
)
FIGURE = ParagraphStyle("figure", parent=TEXT, alignment=TA_RIGHT)
HEAD_CELL = ParagraphStyle("head", parent=SMALL, fontName=BOLD)
HEAD_FIGURE = ParagraphStyle("head figure", parent=HEAD_CELL, alignment=TA_RIGHT)

Rows = list[list[Paragraph | str]]


def report_pdf(payload: Mapping[str, Any], standing: Standing, *, sha256: str = "") -> bytes:
    """Draw the report. `sha256` is that of the stored payload; a draft has none."""
    target = io.BytesIO()
    document = BaseDocTemplate(
        target,
        pagesize=A4,
        title="White-cell differential",
        author=printable(payload["laboratory"]["name"]),
        subject=ribbon_words(payload, standing),
        creator="HematoVision",
        lang="en",
        invariant=1,
    )
    frame = Frame(MARGIN, FOOT + 6 * mm, WIDTH, A4[1] - HEAD - FOOT - 10 * mm, 0, 0, 0, 0)

    def draw_head(canvas: Canvas, document: BaseDocTemplate) -> None:
        page_head(canvas, payload, standing)

    document.addPageTemplates([PageTemplate("report", [frame], onPage=draw_head)])
    foot = foot_words(payload, sha256)

    class Numbered(NumberedCanvas):
        words = foot

    document.build(story(payload, standing, sha256), canvasmaker=Numbered)
    return target.getvalue()


class NumberedCanvas(Canvas):
    """Writes `page n of N` at the foot, once it is known how many there are."""

    words = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.finished: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 (the library's name)
        self.finished.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(self.finished, start=1):
            self.__dict__.update(page)
            self.setFont(REGULAR, 7)
            self.setFillColor(QUIET)
            self.drawString(MARGIN, FOOT - 2 * mm, self.words)
            self.drawRightString(A4[0] - MARGIN, FOOT - 2 * mm, f"page {number} of {len(self.finished)}")
            super().showPage()
        super().save()


def foot_words(payload: Mapping[str, Any], sha256: str) -> str:
    report = payload["report"]
    if not report:
        return "Draft - not signed"
    return f"Report {report['id']}, version {report['version']}" + (f", SHA-256 {sha256[:16]}..." if sha256 else "")


def page_head(canvas: Canvas, payload: Mapping[str, Any], standing: Standing) -> None:
    """On every page: the laboratory, the accession number and what the report is worth, in words."""
    top = A4[1] - 14 * mm
    canvas.saveState()
    ribbon = ribbon_words(payload, standing)
    colour = GOOD if standing in IN_FORCE else WARN
    width = canvas.stringWidth(ribbon, BOLD, 9) + (28 if standing in IN_FORCE else 16)
    left = A4[0] - MARGIN - width
    canvas.setStrokeColor(colour)
    canvas.setFillColor(white if standing in IN_FORCE else WARN_SOFT)
    canvas.setLineWidth(1.2)
    canvas.roundRect(left, top - 6, width, 18, 3, fill=1)
    canvas.setFillColor(colour)
    if standing in IN_FORCE:
        draw_lock(canvas, left + 8, top - 1)
    canvas.setFont(BOLD, 9)
    canvas.drawRightString(A4[0] - MARGIN - 8, top, ribbon)
    canvas.setFillColor(INK)
    canvas.setFont(BOLD, 9)
    canvas.drawString(MARGIN, top + 4, shortened(canvas, payload["laboratory"]["name"], BOLD, left - MARGIN - 10))
    canvas.setFillColor(QUIET)
    canvas.setFont(REGULAR, 8)
    number = f"Accession number {payload['case']['accession_number']}"
    canvas.drawString(MARGIN, top - 7, shortened(canvas, number, REGULAR, left - MARGIN - 10))
    canvas.setStrokeColor(GRID)
    canvas.setLineWidth(0.7)
    canvas.line(MARGIN, top - 13, A4[0] - MARGIN, top - 13)
    canvas.restoreState()


def draw_lock(canvas: Canvas, x: float, y: float) -> None:
    """A closed lock, 8 points high: signed."""
    canvas.setLineWidth(1.1)
    canvas.arc(x + 1.2, y + 2.5, x + 5.8, y + 9, 0, 180)
    canvas.rect(x, y, 7, 5.5, stroke=0, fill=1)


def shortened(canvas: Canvas, text: str, font: str, width: float) -> str:
    text = printable(text)
    if canvas.stringWidth(text, font, 9) <= width:
        return text
    while text and canvas.stringWidth(text + "...", font, 9) > width:
        text = text[:-1]
    return text + "..."


# --- The pages ----------------------------------------------------------------------------------------------------


def story(payload: Mapping[str, Any], standing: Standing, sha256: str) -> list[Flowable]:
    parts: list[Flowable] = [words("White-cell differential", TITLE), Spacer(1, 4)]
    if sentence := STANDINGS[standing]:
        # Beside every unreviewed result, not only where the signature would be.
        parts += [boxed(sentence if payload["report"] else f"{sentence} {payload['statement']}"), Spacer(1, 6)]
    parts += [case_facts(payload), Spacer(1, 8)]
    parts += differential_part(payload)
    parts += outside_part(payload)
    parts += text_part(payload)
    parts.append(KeepTogether(signature_part(payload, sha256)))
    parts.append(PageBreak())
    parts += limits_part(payload)
    if NO_GLYPH in printable(texts_of(payload)) and NO_GLYPH not in texts_of(payload):
        parts += [Spacer(1, 8), words(NOT_PRINTED, SMALL)]
    return parts


def words(text: str, style: ParagraphStyle = TEXT) -> Paragraph:
    """A paragraph of what somebody wrote: nothing of it is markup."""
    return Paragraph(escape(printable(text)).replace("\n", "<br/>"), style)


def texts_of(payload: Mapping[str, Any]) -> str:
    """Everything in the document that somebody typed."""
    case, report = payload["case"], payload["report"]
    typed = [payload["laboratory"]["name"], case["accession_number"], case["patient_pseudonym"], case["specimen"]]
    if case["wbc"]:
        typed.append(case["wbc"]["source"])
    if report:
        typed += [report["comment"], report["reason"], report["signer"]["name"]]
    return "\n".join(text or "" for text in typed)


def boxed(text: str) -> Table:
    table = Table([[words(text)]], colWidths=[WIDTH])
    table.setStyle(TableStyle([("BOX", (0, 0), (-1, -1), 1, WARN), ("BACKGROUND", (0, 0), (-1, -1), WARN_SOFT)]))
    return table


def case_facts(payload: Mapping[str, Any]) -> Table:
    cells = [[words(name, SMALL), words(value)] for name, value in facts_of(payload)]
    rows = [left + right for left, right in zip(cells[::2], [*cells[1::2], ["", ""]], strict=False)]
    table = Table(rows, colWidths=[28 * mm, WIDTH / 2 - 28 * mm] * 2)
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *PADDING, ("LEFTPADDING", (0, 0), (-1, -1), 0)]))
    return table


PADDING: list[tuple[Any, ...]] = [
    ("TOPPADDING", (0, 0), (-1, -1), 2.5),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
]
FIGURES = {"n", "Percent", "95 % limits"}
LINES: list[tuple[Any, ...]] = [
    ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
    ("LINEBELOW", (0, 0), (-1, 0), 0.8, INK),
    ("LINEBELOW", (0, 1), (-1, -1), 0.4, GRID),
    *PADDING,
]


def differential_part(payload: Mapping[str, Any]) -> list[Flowable]:
    differential = payload["differential"]
    basis = f"{differential['n']:,} leukocytes counted (target {differential['target_count']:,}); "
    line = basis + BASES[differential["basis"]] + "."
    parts: list[Flowable] = [words("Differential", HEADING), words(line), Spacer(1, 4)]
    if not differential["cells"]:
        return parts
    parts += [differential_table(differential["cells"]), Spacer(1, 10)]
    legend = "Bar: share; dashed: AI suggestion. Whisker: 95 % limits. Grey band: the laboratory's reference range. "
    parts.append(KeepTogether([differential_chart(differential["cells"], WIDTH), words(legend + SAMPLING_ONLY, SMALL)]))
    return parts


def differential_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    with_absolute = any(cell.get("absolute") for cell in cells)
    heads = ["Cell type", "n", "Percent", "95 % limits", "Reference range", "Flag"]
    widths = [4 * mm, 44 * mm, 14 * mm, 18 * mm, 28 * mm, 30 * mm, 36 * mm]
    if with_absolute:
        heads.append("10⁹/L (limits)")
        widths = [4 * mm, 42 * mm, 13 * mm, 16 * mm, 26 * mm, 20 * mm, 12 * mm, 41 * mm]
        heads[4] = "Range"
    rows: Rows = [["", *(words(head, HEAD_FIGURE if head in FIGURES else HEAD_CELL) for head in heads)]]
    style: list[tuple[Any, ...]] = list(LINES)
    for number, cell in enumerate(cells, start=1):
        flag = flag_words(cell)
        row = [
            "",
            words(name_of(cell["label"])),
            words(str(cell["n"]), FIGURE),
            words("" if cell["percent"] is None else figure(cell["percent"]), FIGURE),
            words(limits_words(cell["low"], cell["high"]), FIGURE),
            words(range_words(cell["range_low"], cell["range_high"])),
            Paragraph(f"<b>{escape(flag)}</b>", TEXT),
        ]
        if with_absolute:
            row.append(words(absolute_words(cell.get("absolute"))))
        rows.append(row)
        style.append(("BACKGROUND", (0, number), (0, number), colour_of(cell["label"])))
        if flag:
            style.append(("BACKGROUND", (1, number), (-1, number), BAND))
    return Table(rows, colWidths=widths, style=TableStyle(style), repeatRows=1, hAlign="LEFT")


def absolute_words(absolute: Mapping[str, float] | None) -> str:
    if not absolute:
        return ""
    limits = f"{count_figure(absolute['low'])} - {count_figure(absolute['high'])}"
    return f"{count_figure(absolute['value'])} ({limits})"


def outside_part(payload: Mapping[str, Any]) -> list[Flowable]:
    """What is seen beside the leukocytes, and what is in no class at all."""
    differential = payload["differential"]
    rows: Rows = [[words("Outside the denominator", HEAD_CELL), words("n", HEAD_FIGURE), words("", HEAD_CELL)]]
    for outside in differential["outside"]:
        per_100 = outside["per_100_wbc"]
        note = "" if per_100 is None else f"{figure(per_100)} per 100 WBC"
        rows.append([words(name_of(outside["label"])), words(str(outside["n"]), FIGURE), words(note)])
    for name in ("unidentified", "unusable"):
        if count := differential.get(name):
            rows.append([words(f"{name.capitalize()} images"), words(str(count), FIGURE), words("in no share")])
    if len(rows) == 1:
        return []
    table = Table(rows, colWidths=[48 * mm, 14 * mm, 60 * mm], style=TableStyle(LINES), hAlign="LEFT")
    return [Spacer(1, 8), KeepTogether([table])]


def text_part(payload: Mapping[str, Any]) -> list[Flowable]:
    report = payload["report"]
    if not report:
        return []
    parts: list[Flowable] = []
    if report["reason"]:
        heading = "Reason" if report["version"] == 1 else f"Why this version was made ({report['kind']})"
        parts += [words(heading, HEADING), words(report["reason"])]
    if report["comment"]:
        parts += [words("Comment", HEADING), words(report["comment"])]
    return parts


def signature_part(payload: Mapping[str, Any], sha256: str) -> list[Flowable]:
    report = payload["report"]
    parts: list[Flowable] = [words("Signed" if report else "Not signed", HEADING), words(payload["statement"])]
    if report:
        signer = report["signer"]
        utc = f" ({utc})" if (utc := signed_utc(report)) else ""
        parts.append(words(f"{signer['name']}, {signer['role']}; {report['signed_at_local']}{utc}"))
        if replaced := report["replaces"]:
            parts.append(words(f"Replaces version {replaced['version']} ({replaced['id']})."))
    parts.append(words(f"Images: {review_words(payload['review'])}.", SMALL))
    for model in payload["models"]:
        text = f"Model {model['name']} {model['version']}, {model['cells']} images, SHA-256 {model['sha256']}"
        parts.append(words(text, SMALL))
    if sha256:
        parts.append(words(f"SHA-256 of the signed content: {sha256}", SMALL))
    return parts


def limits_part(payload: Mapping[str, Any]) -> list[Flowable]:
    parts: list[Flowable] = [words("What this report can and can't say", HEADING)]
    for limit in payload["limits"]:
        parts.append(Paragraph(escape(printable(limit)), TEXT, bulletText="•"))
    version = payload["laboratory"]["settings_version"]
    parts.append(Spacer(1, 6))
    text = f"Reference ranges and codes are the laboratory's own, version {version} of its settings."
    parts.append(words(text, SMALL))
    return parts
