"""A small OpenID Connect provider on loopback, with real keys and signatures, for the tests of signing in by one."""

import json
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

CLIENT = ("hematovision-test", "the client's own secret")


def fresh_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Issuer:
    """What it says is set by the test: `claims` go over those of an honest answer; None takes one out."""

    url: str = ""
    key: RSAPrivateKey = field(default_factory=fresh_key)
    signing_key: RSAPrivateKey | None = None
    algorithm: str = "RS256"
    key_id: str = "first"
    email: str = "ruth@north.example"
    claims: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    user_info: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)

    def signs_in(self, address: str) -> tuple[str, str]:
        """What happens in the browser there: `address` was asked for. Returns code and state."""
        self.asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        return "the-code", self.asked["state"]

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
            **self.about,
        }

    def keys(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": "first", "use": "sig", "alg": "RS256"}]}

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        basic = b64encode(":".join(CLIENT).encode()).decode()
        known = authorization == f"Basic {basic}" or (form.get("client_id"), form.get("client_secret")) == CLIENT
        right = form["code"] == "the-code" and challenge == self.asked["code_challenge"]
        if not (known and right and form["redirect_uri"] == self.asked["redirect_uri"]):
            return None
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT[0],
            "sub": "person-7",
            "iat": now,
            "exp": now + 300,
            "nonce": self.asked["nonce"],
            "email": self.email,
            "email_verified": True,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        key: Any = "" if self.algorithm == "none" else self.signing_key or self.key
        if self.algorithm == "HS256":
            key = CLIENT[1].encode().ljust(32)
        id_token = jwt.encode(claims, key, algorithm=self.algorithm, headers={"kid": self.key_id})
        return {"access_token": "let me see", "token_type": "Bearer", "id_token": id_token}

    def answer(self, path: str, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        self.paths.append(path)
        if path == "/token":
            return self.token(form, authorization)
        if path == "/userinfo" and authorization == "Bearer let me see":
            return self.user_info
        return {"/.well-known/openid-configuration": self.discovery(), "/keys": self.keys()}.get(path)

    def serve(self) -> ThreadingHTTPServer:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.respond({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.respond({name: values[0] for name, values in parse_qs(body).items()})

            def respond(self, form: dict[str, str]) -> None:
                found = issuer.answer(self.path, form, self.headers.get("Authorization", ""))
                body = json.dumps(found or {"error": "invalid_request"}).encode()
                self.send_response(400 if found is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server
