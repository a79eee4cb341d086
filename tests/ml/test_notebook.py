import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml.data_folder import data_folder

from .kaggle_folders import draw_kaggle_folders

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "ml" / "notebooks" / "model_training.ipynb"

# Runs the code cells in order in one namespace; what a cell ends with is what a notebook would show.
RUNNER = """
import ast, json, sys
from pathlib import Path
shown, space = [], {"__name__": "notebook"}
for cell in json.loads(Path(sys.argv[1]).read_text())["cells"]:
    if cell["cell_type"] != "code":
        continue
    body = ast.parse("".join(cell["source"])).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), cell["id"], "exec"), space)
    value = eval(compile(ast.Expression(last.value), cell["id"], "eval"), space) if last else None
    if hasattr(value, "_repr_png_"):
        shown.append(len(value._repr_png_()))
facts = {name: space[name] for name in ("as_written", "on_cached", "on_cut", "product", "counts")}
Path(sys.argv[2]).write_text(json.dumps({"shown": shown, **facts}))
"""


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return content


def test_the_notebook_is_well_formed(notebook: dict[str, Any]) -> None:
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert {cell["cell_type"] for cell in notebook["cells"]} == {"markdown", "code"}


def test_the_notebook_holds_no_outputs(notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_the_notebook_leaves_the_work_to_the_package(notebook: dict[str, Any]) -> None:
    longest = max(len(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert longest <= 30


@pytest.mark.timeout(900)
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="not run: TensorFlow is not installed")
    data, is_real = data_folder(), (data_folder() / "kaggle-blood-cells" / "TRAIN").is_dir()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MPLBACKEND": "Agg",
        "HEMATOVISION_NOTEBOOK_IMAGES": "8",
        "HEMATOVISION_NOTEBOOK_OUT": str(tmp_path / "out"),
    }
    if not is_real:
        data = tmp_path / "data"
        draw_kaggle_folders(data / "kaggle-blood-cells", 8)
        environment |= {"HEMATOVISION_DATA": str(data), "HEMATOVISION_NOTEBOOK_WEIGHTS": "random"}
    facts = tmp_path / "facts.json"
    command = [sys.executable, "-c", RUNNER, str(NOTEBOOK), str(facts)]
    done = subprocess.run(
        command, cwd=NOTEBOOK.parent, env=environment, capture_output=True, text=True, check=False, timeout=890
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(facts.read_text())
    assert sum(found["counts"].values()) == pytest.approx(64, abs=8)
    assert len(found["shown"]) == 8
    assert all(size > 2000 for size in found["shown"])
    for name in ("as_written", "on_cached", "on_cut"):
        assert found[name]["n"] == found["counts"]["test"]
    assert found["product"].count("no class") >= 5
    assert "accuracy" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "training.csv",
        "training-cached.csv",
        "training-cut.csv",
    }
