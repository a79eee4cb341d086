"""Without a usable model nothing is invented: images wait, and the instance says why."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml.model_card import MODEL_FILE
from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import ROOT, pictures, wait_until
from tests.servers import RunningServer


def remove(model: Path) -> None:
    model.unlink()


def alter(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 0xFF
    model.write_bytes(content)


@pytest.mark.any_database
@pytest.mark.parametrize(("damage", "code"), [(remove, "model_missing"), (alter, "model_altered")])
def test_images_wait_for_a_usable_model(
    make_instance: MakeInstance, redis: RunningServer, tmp_path: Path, damage: Callable[[Path], None], code: str
) -> None:
    bundles = shutil.copytree(ROOT / "ml" / "artifacts", tmp_path / "bundles")
    model = bundles / (bundles / "SHIPPED").read_text().strip() / MODEL_FILE
    whole = model.read_bytes()
    instance = make_instance(REDIS_URL=redis.url, MODEL_BUNDLES=str(bundles), **QUICK)
    client = instance.client()
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")

    damage(model)
    case = client.open_case()
    for picture in pictures(3):
        client.upload(case, picture)
    wait_until(lambda: client.unready().get("model") == code, 10, f"/readyz says {code}")
    time.sleep(3 * float(QUICK["SWEEP_SECONDS"]))  # the sweep wakes the worker meanwhile
    assert instance.statuses() == {"queued": 3}
    assert instance.predictions() == (0, 0)

    model.write_bytes(whole)
    wait_until(lambda: instance.statuses() == {"classified": 3}, 60, "all three images are classified")
    assert instance.predictions() == (3, 3)
    wait_until(lambda: not client.unready(), 30, "the instance is ready again")
