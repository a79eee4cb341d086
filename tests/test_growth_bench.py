"""The bench of growth asks a small and a large instance in turns, each through a process that answers line by line."""

import io
import json
import sys
from typing import Any

import pytest

from bench import pages
from bench.growth import ROUNDS, AskedPages, compared, measured


class Scripted(AskedPages):
    """An instance whose page takes `processor_ms`, every other time ten times as long as somebody else is at work."""

    def __init__(self, log: list[tuple[str, str, int | None]], name: str, processor_ms: float) -> None:
        self.log, self.name, self.processor_ms = log, name, processor_ms

    def ask(self, do: str, page: str, rows: int | None) -> dict[str, Any]:
        self.log.append((self.name, do, rows))
        if do == "begin":
            return {"rows": 3 if self.name == "small" else 50}
        if do == "explain":
            return {"queries": 4, "plan": ["SCAN"]}
        busy = len(self.log) % 8 < 2
        used = self.processor_ms * (10 if busy else 1)
        return {"ms": used + 1, "processor_ms": used, "helpers_ms": 0.0}


def test_both_sizes_are_asked_in_turns_with_as_many_rows() -> None:
    log: list[tuple[str, str, int | None]] = []
    small, large = measured("worklist", Scripted(log, "small", 10.0), Scripted(log, "large", 12.0))

    rounds = [(name, rows) for name, do, rows in log if do == "once"]
    assert rounds == [("small", 3), ("large", 3)] * ROUNDS
    assert [(name, rows) for name, do, rows in log if do == "begin"] == [("small", None), ("large", 3)]
    assert [(name, rows) for name, do, rows in log if do == "explain"] == [("small", 3), ("large", 3)]
    assert (small["processor_ms"], large["processor_ms"], large["queries"]) == (10.0, 12.0, 4)
    assert compared(small, large)["processor_ratio"] == pytest.approx(1.2)


@pytest.mark.django_db
def test_process_answers_one_line_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def shows_two_rows() -> list[str]:
        asked.append("list")
        return ["first", "second"]

    monkeypatch.setattr(pages, "questions", lambda: {"list": shows_two_rows})
    turns = (("begin", None), ("once", 2), ("explain", 2))
    lines = [json.dumps({"do": do, "page": "list", "rows": rows}) + "\n" for do, rows in turns]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines)))
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", said)

    pages.main([])

    names, begun, once, explained = map(json.loads, said.getvalue().splitlines())
    assert names == ["list"]
    assert begun == {"rows": 2}
    assert once["ms"] > 0
    assert once["processor_ms"] >= 0
    assert explained == {"queries": 0, "plan": []}
    assert len(asked) == 4
