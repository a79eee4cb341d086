"""CSV that is written while it is read: constant memory, whatever the number of rows."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from classifier.reports.csv_files import harmless


class Line:
    """What a csv writer writes to: gives each line back instead of keeping it."""

    def write(self, text: str) -> str:
        return text


def streamed(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The head and then a line a row, in UTF-8 with the mark that Excel needs; no cell is taken for a formula."""
    writer = csv.writer(Line(), lineterminator="\r\n")
    yield str(writer.writerow(columns)).encode("utf-8-sig")
    for row in rows:
        yield str(writer.writerow([harmless(row.get(column)) for column in columns])).encode()
