"""Rules that keep the house in shape and that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db.models import PROTECT, ForeignKey

from accounts.facts import Fact

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("accounts", "classifier", "hematovision", "ml")
SOURCES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts
]
RUNTIMES = ("tensorflow", "keras", "ai_edge_litert", "numpy", "cv2")

# Function-local imports outside ml/: each with its reason.
LOCAL_IMPORTS = {
    ("accounts/apps.py", "accounts"): "the app registry must be full before signals are connected",
    ("classifier/apps.py", "classifier"): "the app registry must be full before checks are registered",
    ("classifier/model_trial.py", "ml.predictor"): "the model runtime belongs to the worker alone",
    ("classifier/pipeline.py", "ml.predictor"): "the model runtime belongs to the worker alone",
    ("hematovision/celery.py", "logging.config"): "only a worker configures logging this way",
    ("hematovision/celery.py", "django.conf"): "settings are read when a worker starts, not when Celery is imported",
}
# Broad `except` outside ml/: each with its reason.
BROAD_EXCEPTS = {
    ("classifier/model_trial.py", "predicted"): "one picture's fault must not end the trial of all",
    ("classifier/pipeline.py", "prepare"): "whatever a decoder throws at one picture must not reach its neighbours",
    ("classifier/pipeline.py", "predict"): "a model's fault with a batch is tried again one by one",
    ("classifier/pipeline.py", "classify_next_batch"): "gives the claim back and raises again",
    ("classifier/uploads.py", "opened"): "decoders tell of damage by every kind of error that there is",
    ("classifier/heartbeat.py", "beat_for_ever"): "a worker that can work must stay visible",
    ("classifier/wakeup.py", "send_for"): "whatever one wake-up ran into, the thread must live to send the next one",
    ("classifier/webhook_sending.py", "send_for_ever"): "whatever one look ran into, the next one may succeed",
    ("classifier/services/images.py", "store_image"): "removes the file of a row that was not written and raises again",
    ("hematovision/backup/writing.py", "back_up"): "removes the half backup and raises again",
}


def in_a_process_of_its_own(code: str) -> str:
    script = f"import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'hematovision.settings'\n{code}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_web_process_imports_no_model_runtime() -> None:
    loaded = in_a_process_of_its_own(
        "import django; django.setup()\n"
        "import hematovision.urls, hematovision.wsgi, classifier.tasks, classifier.admin, sys\n"
        f"print([name for name in {RUNTIMES!r} if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_web_process_is_small() -> None:
    """What a web worker needs once every page is imported, before it has seen a picture."""
    rss = in_a_process_of_its_own(
        "from hematovision.wsgi import application\nimport hematovision.urls, os, psutil\n"
        "print(psutil.Process(os.getpid()).memory_info().rss)"
    )
    assert int(rss) < 200 * 1024**2


def test_model_knows_nothing_of_django() -> None:
    loaded = in_a_process_of_its_own(
        "import sys, ml.predictor, ml.model_card\n"
        "print([name for name in ('django', 'classifier', 'accounts') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


def local_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(node.module or "")
    return found


def broad_excepts(path: Path) -> set[str]:
    found: set[str] = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                broad = isinstance(node, ast.ExceptHandler) and (
                    node.type is None or getattr(node.type, "id", "") in {"Exception", "BaseException"}
                )
                if broad:
                    found.add(function.name)
    return found


def clinical_sources() -> list[tuple[str, Path]]:
    listed = [(str(path.relative_to(ROOT)), path) for path in SOURCES if path.parts[len(ROOT.parts)] != "ml"]
    # Runs before anything is installed, with nothing but the standard library to import when it needs it.
    return [(name, path) for name, path in listed if name != "hematovision/bootstrap.py"]


def test_function_local_imports_are_those_with_a_reason() -> None:
    found = {(name, module) for name, path in clinical_sources() for module in local_imports(path)}
    assert found == set(LOCAL_IMPORTS)


def test_broad_excepts_are_those_with_a_reason() -> None:
    found = {(name, function) for name, path in clinical_sources() for function in broad_excepts(path)}
    assert found == set(BROAD_EXCEPTS)


def test_nobody_assigns_the_status_of_an_image_outside_the_transition_table() -> None:
    assigning = re.compile(r"\.status\s*=[^=]|update\([^)]*\bstatus\s*=")
    offenders = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.name not in {"transitions.py", "case_transitions.py"}
        and "classifier" in path.parts
        and assigning.search(path.read_text())
    ]
    assert offenders == []


def test_every_fact_has_its_triggers_listed_for_the_tests() -> None:
    from tests.conftest import FACT_TABLES

    facts = {model._meta.db_table for model in apps.get_models() if issubclass(model, Fact)}
    assert facts == set(FACT_TABLES)


def test_evidence_is_never_deleted_by_cascade() -> None:
    for model in apps.get_app_config("classifier").get_models():
        for field in model._meta.fields:
            if isinstance(field, ForeignKey):
                assert field.remote_field.on_delete is PROTECT, f"{model.__name__}.{field.name}"


@pytest.mark.django_db
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_system_checks_are_silent() -> None:
    call_command("check", "--fail-level", "INFO", verbosity=0)


def test_claim_that_does_not_outlive_a_task_stops_the_start(settings: object) -> None:
    from django.core.checks import run_checks
    from django.test import override_settings

    with override_settings(CLAIM_SECONDS=30, CELERY_TASK_TIME_LIMIT=45):
        assert "classifier.E001" in {message.id for message in run_checks()}


def test_templates_hold_no_inline_script_or_style() -> None:
    forbidden = re.compile(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|<style", re.IGNORECASE)
    offenders = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "templates").rglob("*.html"))
        if forbidden.search(path.read_text())
    ]
    assert offenders == []


def test_files_have_a_size_that_can_be_read() -> None:
    too_long = [str(path.relative_to(ROOT)) for path in SOURCES if len(path.read_text().splitlines()) > 450]
    assert too_long == []
