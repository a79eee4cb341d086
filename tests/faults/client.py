"""A small REST client, as a laboratory's script would be: what it sees is what a user would see."""

import http.client
import json
import uuid
from typing import Any


class Client:
    def __init__(self, port: int, token: str = "") -> None:
        self.port = port
        self.token = token

    def call(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": kind, "Authorization": f"Token {self.token}"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def open_case(self) -> str:
        status, case = self.call("POST", "/api/v1/cases/", b"{}")
        assert status == 201, case
        return str(case["id"])

    def upload(self, case: str, picture: bytes) -> str:
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="cell.jpg"\r\n'
        body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + picture + f"\r\n--{boundary}--\r\n".encode()
        status, image = self.call(
            "POST", f"/api/v1/cases/{case}/images/", body, f"multipart/form-data; boundary={boundary}"
        )
        assert status == 202, image
        return str(image["id"])

    def image(self, identifier: str) -> dict[str, Any]:
        status, image = self.call("GET", f"/api/v1/images/{identifier}/")
        assert status == 200, image
        return image

    def unready(self) -> dict[str, str]:
        """The checks that fail, with their codes; empty when the instance is ready."""
        try:
            status, answer = self.call("GET", "/readyz")
        except OSError:
            return {"web": "not_reachable"}
        failing = {name: check["code"] for name, check in answer["checks"].items() if not check["ok"]}
        assert (status == 200) == (not failing), answer
        return failing
