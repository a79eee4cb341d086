"""The whole way over the API, with the shipped model: from pictures to a signed and then a corrected report."""

from collections.abc import Callable
from typing import Any

from rest_framework.test import APIClient

from accounts.models import User
from classifier import pipeline
from classifier.models import ModelVersion
from tests.conftest import PASSWORD
from tests.pictures import jpeg_of_cell, real_image_files

Api = Callable[..., APIClient]
API = "/api/v1"


def some_cells() -> list[bytes]:
    files = real_image_files()[:8]
    return [file.read_bytes() for file in files] or [jpeg_of_cell(seed) for seed in range(8)]


def test_case_goes_from_pictures_to_a_corrected_report(
    api: Api, technologist: User, reader: User, model_version: ModelVersion, as_upload: Callable[..., Any]
) -> None:
    bench, desk = api(technologist), api(reader)
    case = bench.post(f"{API}/cases/", {"accession_number": "W-1", "wbc_value": 6.0, "wbc_source": "analyser"}).json()
    urls = [
        bench.post(f"{case['url']}images/", {"file": as_upload(content)}, format="multipart").json()["url"]
        for content in some_cells()
    ]
    assert bench.get(f"{case['url']}differential/").json()["blocked_by"][0] == {
        "code": "queued",
        "count": len(urls),
        "message": f"{len(urls)} images are not classified yet: wait for the model.",
    }

    while pipeline.classify_queued():
        pass
    for url in urls:
        image = bench.get(url).json()
        label = image["prediction"]["label"]
        said = {"verdict": "CONFIRMED"} if label else {"verdict": "CORRECTED", "final_label": "lymphocyte"}
        answer = bench.post(f"{url}reviews/", {**said, "previous_review": None})
        assert (answer.status_code, bench.get(url).json()["status"]) == (201, "reviewed")

    live = desk.get(f"{case['url']}differential/").json()
    assert live["basis"] == "reviewed"
    assert [reason["code"] for reason in live["blocked_by"]] == ["below_target_count"]
    assert bench.post(f"{case['url']}reports/", {"password": PASSWORD, "reason": "a trial"}).status_code == 403
    assert desk.post(f"{case['url']}reports/", {"password": PASSWORD}).json()["code"] == "release_blocked"
    first = desk.post(f"{case['url']}reports/", {"password": PASSWORD, "reason": "a small sample"}).json()
    assert desk.get(f"{API}/reports/{first['id']}/").json()["payload"]["differential"]["cells"] == live["cells"]
    late = bench.post(f"{case['url']}images/", {"file": as_upload(jpeg_of_cell(99))}, format="multipart")
    assert (late.status_code, late.json()["code"]) == (409, "case_released")

    opened = desk.post(f"{case['url']}amendments/", {"kind": "corrected", "reason": "one cell was misnamed"})
    assert opened.status_code == 201
    assert desk.get(f"{API}/reports/{first['id']}/").json()["standing"] == "being_amended"
    before = desk.get(urls[0]).json()["review"]
    other = "monocyte" if desk.get(urls[0]).json()["prediction"]["label"] != "monocyte" else "neutrophil"
    changed = {"verdict": "CORRECTED", "final_label": other, "previous_review": before["id"]}
    assert desk.post(f"{urls[0]}reviews/", changed).status_code == 201
    second = desk.post(f"{case['url']}reports/", {"password": PASSWORD, "reason": "a small sample"}).json()

    old, new = (desk.get(f"{API}/reports/{report['id']}/").json() for report in (first, second))
    assert (old["standing"], new["standing"], second["version"]) == ("superseded", "current", 2)
    assert old["payload"]["differential"]["cells"] == live["cells"]
    assert new["payload"]["report"]["kind"] == "corrected"
    assert desk.get(case["url"]).json()["status"] == "corrected"
