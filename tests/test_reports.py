"""What is drawn from a payload: words, CSV, PDF, the differences of two versions. Nothing here needs a database."""

import csv
import io
import json
from typing import Any

import pytest
from pypdf import PdfReader

from classifier.reports.changes import changed_labels, changes_between
from classifier.reports.csv_files import CELL_COLUMNS, DIFFERENTIAL_COLUMNS, cells_csv, differential_csv
from classifier.reports.fonts import NO_GLYPH, printable
from classifier.reports.page import page_of
from classifier.reports.payload import canonical_json, payload_sha256
from classifier.reports.pdf import report_pdf
from classifier.reports.pdf_chart import axis_end
from classifier.reports.standing import Standing, standing_of
from classifier.reports.words import STANDINGS, range_words, ribbon_words, statement
from tests.sample_report import REPORT_ID, cell, draft_payload, image, sample_payload


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def sheets_of(payload: dict[str, Any], standing: Standing = Standing.CURRENT) -> list[str]:
    """The text of each page of the PDF, in one line."""
    pages = PdfReader(io.BytesIO(report_pdf(payload, standing, sha256="ab" * 32))).pages
    return [" ".join(page.extract_text().split()) for page in pages]


def with_report(**changes: Any) -> dict[str, Any]:
    payload = sample_payload()
    return {**payload, "report": {**payload["report"], **changes}}


def with_case(**changes: Any) -> dict[str, Any]:
    payload = sample_payload()
    return {**payload, "case": {**payload["case"], **changes}}


# --- The stored text -----------------------------------------------------------------------------------------------


def test_canonical_text_does_not_depend_on_the_order_of_keys() -> None:
    payload = sample_payload()
    turned = dict(reversed(list(payload.items())))
    assert canonical_json(turned) == canonical_json(payload)
    assert canonical_json(json.loads(canonical_json(payload))) == canonical_json(payload)


def test_canonical_text_is_utf_8_without_spaces_and_its_hash_is_known() -> None:
    text = canonical_json({"b": [1, 2.5, None], "a": "Ωμέγα"})
    assert text == '{"a":"Ωμέγα","b":[1,2.5,null]}'
    # sha256sum of exactly these bytes
    assert payload_sha256(text) == "3d15428f9a211d274a2db2f8f370108f4763dac8b7fcb914cc7e9843cd6a7517"


def test_number_that_is_none_is_never_stored() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"percent": float("nan")})


# --- Words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest", "amending", "void", "standing"),
    [
        (True, False, False, Standing.CURRENT),
        (True, True, False, Standing.BEING_AMENDED),
        (False, False, False, Standing.SUPERSEDED),
        (True, True, True, Standing.ENTERED_IN_ERROR),
        (False, False, True, Standing.ENTERED_IN_ERROR),
    ],
)
def test_standing_of_a_version(newest: bool, amending: bool, void: bool, standing: Standing) -> None:
    assert standing_of(is_newest=newest, being_amended=amending, void=void) == standing


def test_every_standing_but_the_usual_one_has_its_sentence() -> None:
    assert set(STANDINGS) == set(Standing)
    assert [standing for standing, sentence in STANDINGS.items() if not sentence] == [Standing.CURRENT]


def test_ribbon_says_kind_version_and_standing() -> None:
    assert ribbon_words(sample_payload(), Standing.SUPERSEDED) == "Released, version 1, superseded"
    assert ribbon_words(draft_payload(), Standing.DRAFT) == "Draft - not signed"


def test_statement_names_every_model() -> None:
    models = [{"name": "a", "version": "1"}, {"name": "b", "version": "2"}]
    assert (
        statement(signer="Ruth", time="today", models=models[:1]) == "AI-assisted, verified by Ruth, today. Model a 1."
    )
    assert statement(signer="Ruth", time="today", models=models).endswith("Model a 1, b 2.")
    assert "AI" not in statement(signer="Ruth", time="today", models=[])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(50, 70, "50 - 70"), (None, 2, "up to 2"), (0.5, None, "from 0.5"), (None, None, "")],
)
def test_range_in_words(low: float | None, high: float | None, words: str) -> None:
    assert range_words(low, high) == words


# --- CSV -----------------------------------------------------------------------------------------------------------


def test_csv_has_a_row_a_cell_type_with_its_flag_and_standing() -> None:
    rows = rows_of(differential_csv(sample_payload(), Standing.SUPERSEDED))
    assert list(rows[0]) == list(DIFFERENTIAL_COLUMNS)
    assert {row["standing"] for row in rows} == {"superseded"}
    assert {row["label"]: row["flag"] for row in rows if row["flag"]} == {"lymphocyte": "L", "eosinophil": "H"}
    neutrophil, erythroblast = rows[0], rows[6]
    assert (neutrophil["n"], neutrophil["of_n"], neutrophil["percent"]) == ("120", "200", "60.0")
    assert (neutrophil["loinc"], neutrophil["absolute"]) == ("26511-6", "4.5")
    assert (erythroblast["group"], erythroblast["n"], erythroblast["per_100_wbc"]) == ("outside", "4", "2.0")
    assert erythroblast["percent"] == ""


def test_csv_of_the_cells_has_a_row_an_image() -> None:
    payload = sample_payload(images=[image(1), image(2, reader=None, verdict=None, reviewed_at=None)])
    rows = rows_of(cells_csv(payload, Standing.CURRENT))
    assert list(rows[0]) == list(CELL_COLUMNS)
    assert (rows[0]["verdict"], rows[0]["reader"], rows[0]["confidence"]) == ("CONFIRMED", "Tess Tanner", "0.97")
    assert (rows[1]["verdict"], rows[1]["reader"]) == ("", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_in_a_csv_is_a_formula(start: str) -> None:
    evil = f"{start}HYPERLINK(1)"
    for content in (
        differential_csv(with_case(accession_number=evil), Standing.CURRENT),
        cells_csv(sample_payload(images=[image(1, reader={"id": "1", "name": evil})]), Standing.CURRENT),
    ):
        values = {value for row in rows_of(content) for value in row.values()}
        assert f"'{evil}" in values
        assert evil not in values


def test_csv_of_a_draft_names_no_version() -> None:
    row = rows_of(differential_csv(draft_payload(), Standing.DRAFT))[0]
    assert (row["report_id"], row["version"], row["kind"], row["standing"]) == ("", "", "draft", "draft")


# --- PDF -----------------------------------------------------------------------------------------------------------


def test_pdf_prints_every_figure_of_the_payload() -> None:
    first, back = sheets_of(sample_payload())
    for row in page_of(sample_payload(), Standing.CURRENT).rows:
        for text in (row.name, row.n, row.percent, row.limits, row.range, row.absolute):
            assert text in first
    assert "15.0 % L" in first
    assert "15.5 % H" in first
    assert "2.0 per 100 WBC" in first
    assert "200 leukocytes counted (target 200); every cell counted was reviewed by a person." in first
    for limit in sample_payload()["limits"]:
        assert limit in back


def test_pdf_prints_who_signed_what_with_which_model() -> None:
    first, back = sheets_of(sample_payload())
    payload = sample_payload()
    assert payload["statement"] in first
    assert "Ruth Reyes, Reader; 23 Nov 2026, 10:12 CET (23 Nov 2026, 09:12 UTC)" in first
    assert payload["models"][0]["sha256"] in first
    assert "ab" * 32 in first
    assert "page 1 of 2" in first
    assert "page 2 of 2" in back
    for sheet in (first, back):
        assert f"Report {REPORT_ID}, version 1" in sheet
        assert "Released, version 1, in force" in sheet


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (Standing.SUPERSEDED, "Do not act on this one."),
        (Standing.BEING_AMENDED, "stays in force"),
        (Standing.ENTERED_IN_ERROR, "nothing in this report may be used"),
    ],
)
def test_pdf_says_on_every_page_what_the_version_is_worth(standing: Standing, words: str) -> None:
    sheets = sheets_of(sample_payload(), standing)
    assert words in sheets[0]
    assert all(f"version 1, {standing.label.lower()}" in sheet for sheet in sheets)


def test_pdf_of_a_draft_is_never_taken_for_a_report() -> None:
    first, back = sheets_of(draft_payload(), Standing.DRAFT)
    assert "AI suggestion - not verified. For trained reviewers; not for diagnosis." in first
    assert "Draft - not signed" in first
    assert "Draft - not signed" in back
    assert "some cells were not reviewed by a person" in first
    assert "Unidentified images 1" in first


def test_same_payload_gives_the_same_bytes() -> None:
    first = report_pdf(sample_payload(), Standing.CURRENT, sha256="ab" * 32)
    assert report_pdf(sample_payload(), Standing.CURRENT, sha256="ab" * 32) == first
    assert report_pdf(sample_payload(), Standing.SUPERSEDED, sha256="ab" * 32) != first


@pytest.mark.parametrize(
    "name",
    [
        "Żółć Gęślą",
        "Ångström Çelik Őry Ștefan",
        "Ядвига Ковальчук ґїє",
        "Ελένη Παπαδοπούλου",
        "Nguyễn Thị Hồng",
        "Հայկ",
    ],
)
def test_names_of_many_scripts_print_right(name: str) -> None:
    payload = with_report(signer={"id": "1", "name": name, "role": "Reader"})
    payload["laboratory"] = {**payload["laboratory"], "name": name}
    first, back = sheets_of(payload)
    assert first.count(name) == 2
    assert name in back
    assert NO_GLYPH not in first + back


def test_character_without_a_glyph_is_a_box_with_an_explanation() -> None:
    first, back = sheets_of(with_report(comment="Seen by 陳大文"))
    assert f"Seen by {NO_GLYPH * 3}" in first
    assert "stands for a character that this font does not have" in back


def test_decomposed_accents_are_composed_and_control_characters_dropped() -> None:
    assert printable("e\u0301\x00\u200b\tx\ny") == "é x\ny"


def test_typed_markup_stays_text() -> None:
    first, _ = sheets_of(with_report(comment="<b>n < 100 & so on</b>\nsecond line"))
    assert "<b>n < 100 & so on</b> second line" in first


def test_long_texts_run_over_pages_without_loss() -> None:
    comment = " ".join(f"word{number}" for number in range(900))
    payload = with_report(comment=comment, reason="x" * 500)
    payload["case"] = {**payload["case"], "accession_number": "A" * 64, "wbc": {"value": 7.5, "source": "S" * 80}}
    sheets = sheets_of(payload)
    assert len(sheets) >= 3
    assert f"page 1 of {len(sheets)}" in sheets[0]
    text = " ".join(sheets)
    assert "word0 word1" in text
    assert "word898 word899" in text


def test_pdf_of_a_case_without_a_counted_leukocyte_is_drawn() -> None:
    nothing = {**cell("neutrophil", 0, (0, 0), (50, 70)), "percent": None, "low": None, "high": None}
    payload = sample_payload(models=[])
    payload["differential"] = {**payload["differential"], "n": 0, "cells": [nothing], "outside": []}
    first, _ = sheets_of(payload)
    assert "Neutrophil 0 50 - 70" in first


@pytest.mark.parametrize(("high", "end"), [(3.6, 10), (10.0, 10), (10.1, 20), (99.0, 100), (100.0, 100)])
def test_chart_ends_above_every_limit(high: float, end: int) -> None:
    assert axis_end([cell("basophil", 1, (0.0, high))]) == end


# --- Differences of two versions -----------------------------------------------------------------------------------


def test_equal_versions_differ_in_nothing() -> None:
    assert changes_between(sample_payload(), with_report(version=2, kind="amended", reason="A typo.")) == []
    assert changed_labels(sample_payload(), sample_payload()) == frozenset()


def test_changes_say_what_was_and_what_is() -> None:
    now = with_report(comment="")
    now["case"] = {**now["case"], "wbc": None}
    cells = [cell("neutrophil", 121, (53.4, 67.3), (50, 70), "H"), *now["differential"]["cells"][2:]]
    outside = [*now["differential"]["outside"], {"label": "platelet", "n": 1, "per_100_wbc": None}]
    now["differential"] = {**now["differential"], "cells": cells, "outside": outside}

    changes = {change.what: (change.before, change.now) for change in changes_between(sample_payload(), now)}

    assert changes == {
        "WBC": ("7.5 x 10^9/L (Analyser 4)", "none"),
        "Neutrophil": ("120, 60.0 % (52.9 - 66.8), range 50 - 70", "121, 60.5 % (53.4 - 67.3), range 50 - 70, H"),
        "Lymphocyte": ("30, 15.0 % (10.4 - 20.7), range 20 - 40, L", "none"),
        "Platelet": ("none", "1"),
        "Comment": ("Eosinophilia; no blasts seen by the reader.", "none"),
    }
    assert changed_labels(sample_payload(), now) == {"neutrophil", "lymphocyte", "platelet"}


def test_lost_flag_is_a_change_even_where_the_share_is_the_same() -> None:
    now = sample_payload()
    now["differential"]["cells"][3].update(flag=None, range_high=20)
    (change,) = changes_between(sample_payload(), now)
    assert change.what == "Eosinophil"
    assert change.before.endswith("range 1 - 4, H")
    assert change.now.endswith("range 1 - 20")
