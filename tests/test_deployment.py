"""The container files name only what exists; no engine is needed to find out."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands

from hematovision.supervisor import beat_command, web_command, worker_command

ROOT = Path(__file__).resolve().parent.parent
# About files and settings: nothing here opens a database.
pytestmark = pytest.mark.any_database
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
SETTINGS = "".join((ROOT / "hematovision" / name).read_text() for name in ("settings.py", "media_storage.py"))
EXAMPLE = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)


def variables_that_settings_read() -> set[str]:
    return set(re.findall(r"(?:env\.\w+|secret)\(\s*\"([A-Z0-9_]+)\"", SETTINGS))


def stages() -> dict[str, str]:
    """Stage -> its instructions."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return {name: f"FROM {base}\n{body}" for base, name, body in zip(*[iter(parts[1:])] * 3, strict=True)}


def commands_of(stage: str) -> list[list[str]]:
    """CMD and HEALTHCHECK of a stage."""
    return [json.loads(found) for found in re.findall(r"CMD (\[.*\])", stages()[stage])]


def shell_words(command: list[str]) -> list[list[str]]:
    """One list of words for each program that a command runs, also behind `sh -c`."""
    if command[:2] == ["sh", "-c"]:
        return [shlex.split(part) for part in command[2].split("&&")]
    return [command]


def assert_runs_here(words: list[str]) -> None:
    """A module, a management command or a program of another image; each must be there."""
    assert words[0] == "python", words
    if words[1] == "-m":
        assert find_spec(words[2]), words
    else:
        assert words[1] == "manage.py", words
        assert words[2] in get_commands(), words


@pytest.mark.parametrize("stage", ["web", "worker"])
def test_image_runs_what_exists_and_not_as_root(stage: str) -> None:
    commands = commands_of(stage)
    assert len(commands) == 2
    for command in commands:
        for words in shell_words(command):
            assert_runs_here(words)
    assert re.search(r"^USER (?!root)\w+$", stages()[stage], re.MULTILINE)


def test_images_start_their_process_as_make_run_does() -> None:
    """The same flags everywhere: what the fault tests prove then holds for the images too."""
    assert commands_of("web")[-1][1:] == web_command("0.0.0.0:8000")[1:]
    assert commands_of("worker")[-1][1:] == worker_command()[1:]
    assert SERVICES["beat"]["command"][1:] == beat_command(Path("/data"))[1:]


def test_dockerfile_copies_only_what_exists_and_what_dockerignore_lets_through() -> None:
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(\S+) \S+$", DOCKERFILE, re.MULTILINE)
    assert sorted(copied) == sorted(allowed)
    for name in copied:
        assert (ROOT / name).exists(), name
    for stage in re.findall(r"^COPY --from=(\S+)", DOCKERFILE, re.MULTILINE):
        assert stage in stages()


def test_web_image_installs_no_model_runtime() -> None:
    """Follow the web image's stages back to the first one: none of them reads the worker's lock."""
    pending, seen = ["web"], set()
    while pending:
        text = stages()[pending.pop()]
        names = re.findall(r"(?:^FROM |--from=)(\S+)", text, re.MULTILINE)
        pending += [name for name in names if name in stages() and name not in seen]
        seen.update(names)
        assert "requirements-worker.txt" not in text
    assert "web-packages" in seen
    assert "requirements-worker.txt" in stages()["worker-packages"]


def test_web_process_starts_where_the_worker_packages_are_not_installed() -> None:
    pins = [
        set(re.findall(r"^([a-z0-9-]+)==", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements-worker.txt", "requirements-web.txt")
    ]
    imported_as = {"opencv-python-headless": "cv2", "protobuf": "google"}
    absent = {imported_as.get(name, name.replace("-", "_")) for name in pins[0] - pins[1]} | {"tensorflow", "keras"}
    assert {"ai_edge_litert", "numpy", "cv2"} <= absent
    script = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from hematovision.wsgi import application
from django.core.management import call_command
call_command("check")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compose_refers_only_to_what_it_defines() -> None:
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            assert other in SERVICES, f"{name} waits for {other}"
            waits_for_health = service["depends_on"][other]["condition"] == "service_healthy"
            assert not waits_for_health or "healthcheck" in SERVICES[other]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
        if name in OURS:
            assert service["build"]["target"] in stages()
    hosts = re.findall(r"(?:@|//)(\w+):\d+", json.dumps(SERVICES["web"]["environment"]))
    assert hosts == ["db", "redis"]
    assert set(hosts) <= set(SERVICES)


def test_compose_can_run_several_of_web_and_worker() -> None:
    """No name and no single port that two containers would both want; of beat there is one."""
    for name in ("web", "worker"):
        assert "container_name" not in SERVICES[name]
        assert "hostname" not in SERVICES[name]
    assert SERVICES["web"]["ports"] == ["127.0.0.1:${WEB_PORTS:-8000}:8000"]
    assert "ports" not in SERVICES["worker"]


def test_both_images_can_speak_to_a_bucket() -> None:
    """By a build argument, which compose gives where S3_BUCKET is set."""
    assert "${S3:+-r requirements-s3.txt}" in stages()["web-packages"]
    assert stages()["worker-packages"].startswith("FROM web-packages")
    for name in ("web", "worker"):
        assert SERVICES[name]["build"]["args"] == {"S3": "${S3_BUCKET:+1}"}
    pins = re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / "requirements-s3.txt").read_text(), re.MULTILINE)
    web = re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / "requirements-web.txt").read_text(), re.MULTILINE)
    names = {pin.split("==")[0] for pin in pins}
    assert "botocore" in names
    # What both need has one version.
    assert {pin for pin in web if pin.split("==")[0] in names} <= set(pins)


def test_compose_commands_exist() -> None:
    commands = [SERVICES[name]["command"] for name in OURS if "command" in SERVICES[name]]
    assert len(commands) == 2
    for command in commands:
        for words in shell_words(command):
            assert_runs_here(words)


def test_compose_sets_only_variables_that_are_read() -> None:
    known = variables_that_settings_read()
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known, name
    for variable in re.findall(r"\$\{([A-Z0-9_]+)", (ROOT / "docker-compose.yml").read_text()):
        assert variable in EXAMPLE


def test_example_lists_every_variable_that_is_read_and_no_other() -> None:
    beside_the_settings = {"HEMATOVISION_DATA", "POSTGRES_PASSWORD", "WEB_CONCURRENCY", "WEB_PORTS"}
    assert len(EXAMPLE) == len(set(EXAMPLE))
    assert set(EXAMPLE) == variables_that_settings_read() | beside_the_settings


def test_production_settings_pass_the_deployment_check(tmp_path: Path) -> None:
    production = {
        **{"PATH": os.environ["PATH"], "HEMATOVISION_VAR": str(tmp_path), "PRODUCTION": "1"},
        **{
            "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "ALLOWED_HOSTS": "lab.example",
            "AUDIT_KEY": "9876543210abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        },
        **{"DATABASE_URL": "postgres://user:secret@db:5432/hematovision", "REDIS_URL": "redis://redis:6379/0"},
    }
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=production, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout

    for key in ("AUDIT_KEY", "SECRET_KEY"):
        del production[key]
        done = subprocess.run(command, cwd=ROOT, env=production, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert f"PRODUCTION=1 needs {key}" in done.stderr
