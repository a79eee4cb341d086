"""A full run of the real processes with planted patient text: none of it reaches a log, mail, the trail, the broker."""

import io
import json
import uuid
import zipfile
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

from PIL import ExifTags, Image

from tests.faults.client import Client
from tests.faults.conftest import QUICK, MakeInstance
from tests.faults.instance import Instance, wait_until
from tests.pictures import drawn_cell, encoded
from tests.servers import RunningServer

MARK = "PLANTED7731"
PLACES = ("NUMBER", "PSEUDONYM", "FILE", "EXIF", "COMMENT", "REASON", "PASSWORD", "TOKEN", "SEARCH", "PATH", "MEMBER")
PLANTED = {place: f"{MARK}{place}" for place in PLACES}


def picture(seed: int) -> bytes:
    about = Image.Exif()
    about[ExifTags.Base.ImageDescription] = PLANTED["EXIF"]
    return encoded(drawn_cell(seed), "JPEG", exif=about, comment=PLANTED["EXIF"].encode())


def send(client: Client, path: str, field: str, name: str, content: bytes) -> tuple[int, dict[str, object]]:
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return client.call("POST", path, body, f"multipart/form-data; boundary={boundary}")


def post(client: Client, path: str, **fields: object) -> tuple[int, dict[str, object]]:
    return client.call("POST", path, json.dumps(fields).encode())


def everything_goes_wrong_and_right(instance: Instance, redis: RunningServer) -> None:
    client = instance.client()
    token = instance.manage("create_token", "reader@demo.example").splitlines()[-1]
    reader = Client(instance.port, token)
    fields = {"accession_number": PLANTED["NUMBER"], "patient_pseudonym": PLANTED["PSEUDONYM"]}
    status, case = post(client, "/api/v1/cases/", **fields)
    assert status == 201
    images = f"/api/v1/cases/{case['id']}/images/"
    status, image = send(client, images, "file", f"{PLANTED['FILE']}.jpg", picture(1))
    assert status == 202
    wait_until(lambda: client.image(str(image["id"]))["status"] == "classified", 60, "the image is classified")

    # Wrong requests.
    assert post(client, "/api/v1/cases/", **fields)[0] == 409
    assert send(client, images, "file", f"{PLANTED['FILE']}.txt", PLANTED["EXIF"].encode())[0] == 400
    assert post(client, "/api/v1/cases/search/", accession_number=PLANTED["SEARCH"])[0] == 200
    assert client.call("GET", f"/api/v1/{PLANTED['PATH']}/?q={PLANTED['SEARCH']}")[0] == 404
    assert client.call("POST", "/api/v1/cases/", f'{{"specimen": "{PLANTED["COMMENT"]}'.encode())[0] == 400
    assert Client(instance.port, PLANTED["TOKEN"]).call("GET", "/api/v1/cases/")[0] == 401
    fill_in(instance.port, "/accounts/login/", login=f"{PLANTED['PSEUDONYM']}@x.example", password=PLANTED["PASSWORD"])
    fill_in(instance.port, "/accounts/login/", login="reader@demo.example", password=PLANTED["PASSWORD"])
    fill_in(instance.port, "/accounts/password/reset/", email="reader@demo.example")
    assert list((instance.var / "mail").iterdir()), "there must be a mail to look at"

    # Reviews, a signature with a wrong password, a void.
    review = {"verdict": "CORRECTED", "final_label": "basophil", "comment": PLANTED["COMMENT"]}
    assert post(reader, f"/api/v1/images/{image['id']}/reviews/", **review)[0] == 201
    reports = f"/api/v1/cases/{case['id']}/reports/"
    assert post(reader, reports, password=PLANTED["PASSWORD"], reason=PLANTED["REASON"])[0] >= 400
    assert post(reader, f"/api/v1/images/{image['id']}/void/", reason=PLANTED["REASON"])[0] == 201

    sign_and_fetch(instance, client, reader)

    # An archive, with a name inside it; then the broker goes.
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{PLANTED['MEMBER']}.jpg", picture(2))
        archive.writestr(f"{PLANTED['MEMBER']}.txt", PLANTED["EXIF"])
    status, batch = send(client, "/api/v1/batches/", "archive", f"{PLANTED['FILE']}.zip", packed.getvalue())
    assert status == 202
    done = {"finished", "cancelled"}
    wait_until(lambda: client.call("GET", f"/api/v1/batches/{batch['id']}/")[1]["state"] in done, 60, "it is finished")
    redis.pause()
    assert send(client, images, "file", f"{PLANTED['FILE']}.jpg", picture(3))[0] == 202
    redis.restart()
    wait_until(lambda: set(instance.statuses()) == {"classified", "reviewed"}, 60, "all images are done")


def sign_and_fetch(instance: Instance, client: Client, reader: Client) -> None:
    """A signed report of planted text, and every form in which it leaves."""
    fields = {"accession_number": f"{PLANTED['NUMBER']}-2", "patient_pseudonym": PLANTED["PSEUDONYM"]}
    _, case = post(client, "/api/v1/cases/", **fields)
    _, image = send(client, f"/api/v1/cases/{case['id']}/images/", "file", f"{PLANTED['FILE']}.jpg", picture(4))
    wait_until(lambda: client.image(str(image["id"]))["status"] == "classified", 60, "the image is classified")
    review = {"verdict": "CORRECTED", "final_label": "basophil", "comment": PLANTED["COMMENT"]}
    assert post(reader, f"/api/v1/images/{image['id']}/reviews/", **review)[0] == 201
    users = dict(line.split(" ", 1) for line in (instance.var / "demo-users").read_text().splitlines())
    signature = {"password": users["reader@demo.example"], "reason": PLANTED["REASON"]}
    status, report = post(reader, f"/api/v1/cases/{case['id']}/reports/", **signature)
    assert status == 201, report
    for form in ("", "pdf/", "fhir/", "csv/"):
        address = f"http://127.0.0.1:{instance.port}/api/v1/reports/{report['id']}/{form}"
        with urlopen(Request(address, headers={"Authorization": f"Token {reader.token}"})) as answer:
            assert answer.status == 200
            assert answer.read()


def fill_in(port: int, path: str, **fields: str) -> None:
    """A form of a page, as a browser sends it."""
    cookies = CookieJar()
    browser = build_opener(HTTPCookieProcessor(cookies))
    address = f"http://127.0.0.1:{port}{path}"
    browser.open(address).read()
    [token] = [cookie.value for cookie in cookies if cookie.name == "hematovision_csrf"]
    browser.open(address, urlencode({**fields, "csrfmiddlewaretoken": str(token)}).encode()).read()


def traces(folder: Path) -> dict[str, list[str]]:
    """Which planted texts stand in which files."""
    found = {}
    for file in (file for file in folder.rglob("*") if file.is_file()):
        content = file.read_bytes()
        if here := [place for place, text in PLANTED.items() if text.encode() in content]:
            found[str(file.relative_to(folder))] = here
    return found


def test_patient_text_stays_in_the_database(make_instance: MakeInstance, redis: RunningServer) -> None:
    instance = make_instance(REDIS_URL=redis.url, LOG_LEVEL="DEBUG", **QUICK)
    client = instance.client()
    instance.start("web", "worker", "beat")
    wait_until(lambda: not client.unready(), 60, "the instance is ready")

    everything_goes_wrong_and_right(instance, redis)
    instance.end()

    logs = {name: content for name, content in traces(instance.var).items() if not name.startswith("db.sqlite3")}
    assert logs == {}
    assert redis.place is not None
    assert traces(redis.place) == {}
    assert len(instance.output("web")) > 1000, "there must be a log to look at"
    assert len(instance.output("worker")) > 1000
    assert PLANTED["NUMBER"] in str(instance.rows("SELECT accession_number FROM classifier_case"))
    trail = str(instance.rows("SELECT * FROM accounts_auditevent"))
    assert len(trail) > 1000
    assert MARK not in trail
