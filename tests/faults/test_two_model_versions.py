"""Two workers, of which one has only the older model: every prediction names the model that made it."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import ROOT, Instance, pictures, wait_until
from tests.servers import RunningServer

NAME, OLD, NEW = "hematovision-mobilenetv2", "1.0.0", "1.1.0"
BY_VERSION = """SELECT version, count(*) FROM classifier_prediction
    JOIN classifier_modelversion ON classifier_modelversion.id = model_version_id GROUP BY version"""
OUTPUTS = """SELECT classifier_cellimage.file, version, confidence FROM classifier_prediction
    JOIN classifier_modelversion ON classifier_modelversion.id = model_version_id
    JOIN classifier_cellimage ON classifier_cellimage.id = image_id"""
IMAGES, SHARE = 24, 12


def confidences(bundle: Path, files: list[Path]) -> dict[str, float]:
    """What this bundle says about the pictures, asked beside all code of the queue; in a process of its own."""
    script = (
        "import sys, pathlib; from ml.predictor import load_predictor\n"
        "model = load_predictor(pathlib.Path(sys.argv[1]), threads=1)\n"
        "for name in sys.argv[2:]:\n"
        "    content = pathlib.Path(name).read_bytes()\n"
        "    print(name, model.predict([model.prepare(content)])[0].confidence, sep='\\t')\n"
    )
    command = [sys.executable, "-c", script, str(bundle), *map(str, files)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {Path(name).name: float(number) for name, number in (line.split("\t") for line in told.splitlines())}


def test_predictions_carry_the_version_that_made_them_when_workers_differ(
    make_instance: MakeInstance, redis: RunningServer, tmp_path: Path
) -> None:
    bundles = ROOT / "ml" / "artifacts"
    only_old = tmp_path / "only the older"
    only_old.mkdir()
    shutil.copytree(bundles / f"{NAME}-{OLD}", only_old / f"{NAME}-{OLD}")
    instance = make_instance(REDIS_URL=redis.url, **QUICK)
    for version in (OLD, NEW):
        instance.manage("register_model", str(bundles / f"{NAME}-{version}"))
    instance.manage("activate_model", NAME, OLD)
    client = instance.client()
    # The one that will be left behind.
    behind = Instance(instance.var, instance.database_url, **{**instance.environment, "MODEL_BUNDLES": str(only_old)})
    instance.start("web", "beat")
    try:
        behind.start("worker")
        wait_until(lambda: not client.unready(), 60, "the instance is ready")
        case = client.open_case()
        cells = pictures(IMAGES)
        for picture in cells[:SHARE]:
            client.upload(case, picture)
        wait_until(lambda: instance.statuses() == {"classified": SHARE}, 60, "the older model has its share")

        instance.manage("activate_model", NAME, NEW)
        # It still has the older model in memory, and asks for work first: nobody else is there.
        for picture in cells[SHARE:]:
            client.upload(case, picture)
        wait_until(
            lambda: instance.rows("SELECT model_code FROM classifier_workerheartbeat") == [("model_missing",)],
            30,
            "the worker that lacks the new model says so",
        )
        assert client.unready() == {"worker": "worker_without_model"}
        assert instance.statuses() == {"classified": SHARE, "queued": IMAGES - SHARE}
        instance.start("worker")
        wait_until(lambda: instance.statuses() == {"classified": IMAGES}, 120, "every image is classified")
        wait_until(lambda: not client.unready(), 30, "one worker that can work is enough")
    finally:
        behind.end()

    counted = dict(instance.rows(BY_VERSION))
    assert counted == {OLD: SHARE, NEW: IMAGES - SHARE}
    assert instance.predictions() == (IMAGES, IMAGES)
    media = instance.var / "media"
    rows = [(media / file, version, confidence) for file, version, confidence in instance.rows(OUTPUTS)]
    for version in (OLD, NEW):
        theirs = {file.name: confidence for file, each, confidence in rows if each == version}
        files = [file for file, each, _ in rows if each == version]
        asked = confidences(bundles / f"{NAME}-{version}", files[:8])
        for name, confidence in asked.items():
            assert abs(confidence - theirs[name]) < 1e-4, "made by another model than the one that it names"
