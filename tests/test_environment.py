"""A variable that is blank is one that is not set, and one that can't be read is refused by its name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from hematovision.environment import Environment

ROOT = Path(__file__).resolve().parent.parent
# About files and settings: nothing here opens a database.
pytestmark = pytest.mark.any_database
EXAMPLE = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
READ = re.findall(r"env\.(int|float|bool)\(\s*\"([A-Z0-9_]+)\"", (ROOT / "hematovision/settings.py").read_text())
# Where the instance lies must be a folder of this test's own.
NOT_BLANK = {"HEMATOVISION_VAR"}
SHOW = """
import json, re
from hematovision import settings
shown = {name: re.sub(" at 0x[0-9a-f]+", "", repr(value)) for name, value in vars(settings).items() if name.isupper()}
print(json.dumps(shown))
"""


def settings_with(variables: dict[str, str], var: Path) -> dict[str, str]:
    """All settings, as a fresh process reads them."""
    given = {"PATH": os.environ["PATH"], "HEMATOVISION_VAR": str(var), **variables}
    done = subprocess.run([sys.executable, "-c", SHOW], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    settings: dict[str, str] = json.loads(done.stdout)
    return settings


@pytest.mark.parametrize("blank", ["", "  "])
def test_settings_are_the_same_whether_variables_are_blank_or_not_set(blank: str, tmp_path: Path) -> None:
    """Every one of them at once: numbers, switches, paths, lists and names."""
    variables = {f"{name}{ending}": blank for name in EXAMPLE for ending in ("", "_FILE")}
    unset = settings_with({}, tmp_path)

    assert len(unset) > 100
    assert settings_with({name: blank for name in variables if name not in NOT_BLANK}, tmp_path) == unset


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "", 7),
        ("int", " \t", 7),
        ("int", "0", 0),
        ("int", " 12 ", 12),
        ("int", "twelve", "no whole number from 0 on: 'twelve'"),
        ("int", "1.5", "no whole number from 0 on: '1.5'"),
        ("int", "-1", "no whole number from 0 on: '-1'"),
        ("int", "16 # a remark", "no whole number from 0 on: '16 # a remark'"),
        ("float", "", 7),
        ("float", "0.25", 0.25),
        ("float", "0,25", "no number from 0 on: '0,25'"),
        ("float", "nan", "no number from 0 on: 'nan'"),
        ("float", "-0.1", "no number from 0 on: '-0.1'"),
        ("bool", "", 7),
        ("bool", "1", True),
        ("bool", "True", True),
        ("bool", "off", False),
        ("bool", "0", False),
        ("bool", "ture", "neither 1 nor 0: 'ture'"),
        ("str", "", 7),
        ("str", "as it is ", "as it is "),
        ("list", "", 7),
        ("list", "a,b", ["a", "b"]),
    ],
)
def test_text_is_read_or_refused_by_the_name_of_its_variable(
    kind: str, text: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_VARIABLE", text)
    read = getattr(Environment(), kind)

    if kind in {"int", "float", "bool"} and isinstance(value, str):
        with pytest.raises(ImproperlyConfigured, match=f"^SOME_VARIABLE is {re.escape(value)}\\.$"):
            read("SOME_VARIABLE", default=7)
    else:
        assert read("SOME_VARIABLE", default=7) == value


@pytest.mark.parametrize(("kind", "name"), sorted(READ))
def test_every_number_and_switch_of_the_settings_refuses_a_typing_error(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1O")

    with pytest.raises(ImproperlyConfigured, match=f"^{name} is n"):
        getattr(Environment(), kind)(name, 1)


def test_settings_refuse_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        settings_with({"MICRO_BATCH_SIZE": "many"}, tmp_path)

    assert "ImproperlyConfigured: MICRO_BATCH_SIZE is no whole number from 0 on: 'many'." in refused.value.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "gunicorn"),
        ({"WEB_CONCURRENCY": ""}, "gunicorn"),
        ({"WEB_CONCURRENCY": " "}, "gunicorn"),
        ({"WEB_CONCURRENCY": "2"}, "gunicorn"),
        ({"WEB_CONCURRENCY": "two"}, "WEB_CONCURRENCY is no whole number from 1 on: 'two'."),
        ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY is no whole number from 1 on: '0'."),
        ({"WEB_CONCURRENCY": "-1"}, "WEB_CONCURRENCY is no whole number from 1 on: '-1'."),
    ],
)
def test_web_server_starts_or_says_what_its_number_is(given: dict[str, str], said: str) -> None:
    command = [sys.executable, "-m", "hematovision.web", "--version"]
    environment = {"PATH": os.environ["PATH"], **given}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert (done.stdout + done.stderr).strip().startswith(said)
    assert (done.returncode == 0) == (said == "gunicorn")
