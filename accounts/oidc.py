"""Sign-in by an OpenID Connect provider: the authorization code flow with PKCE, state and nonce.

Of the provider's answer only one thing is used: an address that it has verified. Its signature is always checked.
"""

import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
import requests
from django.conf import settings

from accounts.refusals import AccountRefused

# Signatures by public keys alone: the client's secret must never pass for a key.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
TIMEOUT_S = 5
CLOCKS_DIFFER_BY_S = 30
MOST_BYTES = 1024**2


@dataclass(frozen=True)
class Started:
    """A sign-in that is under way; kept in the session until the provider sends its user back."""

    state: str
    nonce: str
    verifier: str


def is_configured() -> bool:
    return bool(settings.OIDC_ISSUER and settings.OIDC_CLIENT_ID)


def start(*, redirect_uri: str) -> tuple[str, Started]:
    """Where the browser goes to be signed in there, and what must come back. Raises AccountRefused (oidc_failed)."""
    started = Started(*(secrets.token_urlsafe(32) for _ in range(3)))
    challenge = urlsafe_b64encode(sha256(started.verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": settings.OIDC_CLIENT_ID,
        "redirect_uri": redirect_uri,
        "scope": "openid email",
        "state": started.state,
        "nonce": started.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    address = endpoint(provider(), "authorization_endpoint")
    return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", started


def verified_address(*, started: Started, state: str, code: str, redirect_uri: str) -> str:
    """The e-mail address that the provider vouches for.

    Raises AccountRefused: oidc_state (not an answer to what we asked), oidc_failed (no valid answer), oidc_unverified.
    """
    if not compare_digest(started.state.encode(), state.encode()):
        raise AccountRefused("oidc_state", "This sign-in was started elsewhere, or too long ago. Start again.")
    try:
        about = provider()
        tokens = tokens_for(about, code=code, verifier=started.verifier, redirect_uri=redirect_uri)
        claims = verified_claims(about, str(tokens["id_token"]), nonce=started.nonce)
        if "email" not in claims:
            claims = {**user_info(about, str(tokens["access_token"]), subject=claims["sub"])}
    except (requests.RequestException, jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
        raise failed() from error
    # Some providers write the boolean as text.
    if claims.get("email_verified") not in (True, "true") or not isinstance(claims.get("email"), str):
        sentence = f"{settings.OIDC_NAME} does not vouch for your address. Verify it there, or use your password."
        raise AccountRefused("oidc_unverified", sentence)
    return str(claims["email"])


def provider() -> dict[str, Any]:
    """What the provider says about itself. Raises AccountRefused (oidc_failed)."""
    issuer = settings.OIDC_ISSUER.rstrip("/")
    try:
        about = document(requests.get(f"{issuer}/.well-known/openid-configuration", timeout=TIMEOUT_S))
        if about["issuer"].rstrip("/") != issuer:
            raise failed()
    except (requests.RequestException, KeyError, AttributeError, ValueError) as error:
        raise failed() from error
    return about


def tokens_for(about: dict[str, Any], *, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
    """Exchange the code for tokens, as the client that we are."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    known = about.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    credentials = (settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET)
    if "client_secret_basic" not in known:
        form |= {"client_id": credentials[0], "client_secret": credentials[1]}
    answer = requests.post(
        endpoint(about, "token_endpoint"),
        data=form,
        auth=credentials if "client_secret_basic" in known else None,
        timeout=TIMEOUT_S,
        allow_redirects=False,
    )
    return document(answer)


def verified_claims(about: dict[str, Any], id_token: str, *, nonce: str) -> dict[str, Any]:
    """What the ID token says, if signature, issuer, audience, times and nonce are right. Raises jwt.PyJWTError."""
    keys = jwt.PyJWKSet.from_dict(document(requests.get(endpoint(about, "jwks_uri"), timeout=TIMEOUT_S))).keys
    wanted = jwt.get_unverified_header(id_token).get("kid")
    fitting = [key for key in keys if key.key_id == wanted] if wanted else keys
    if len(fitting) != 1:
        raise jwt.InvalidKeyError
    claims: dict[str, Any] = jwt.decode(
        id_token,
        fitting[0],
        algorithms=list(ALGORITHMS),
        audience=settings.OIDC_CLIENT_ID,
        issuer=about["issuer"],
        leeway=CLOCKS_DIFFER_BY_S,
        options={"require": ["exp", "iat", "iss", "aud", "sub", "nonce"]},
    )
    if not compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
        raise jwt.InvalidTokenError
    if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != settings.OIDC_CLIENT_ID:
        raise jwt.InvalidAudienceError
    return claims


def user_info(about: dict[str, Any], access_token: str, *, subject: str) -> dict[str, Any]:
    """The claims about the same person, from providers that keep the address out of the ID token. Raises ValueError."""
    headers = {"Authorization": f"Bearer {access_token}"}
    info = document(requests.get(endpoint(about, "userinfo_endpoint"), headers=headers, timeout=TIMEOUT_S))
    if info.get("sub") != subject:
        message = "the user info is about somebody else"
        raise ValueError(message)
    return info


def document(answer: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer. Raises requests.RequestException, ValueError."""
    answer.raise_for_status()
    if answer.status_code != requests.codes.ok or len(answer.content) > MOST_BYTES:
        message = "not the document that was asked for"
        raise ValueError(message)
    found = answer.json()
    if not isinstance(found, dict):
        message = "not an object"
        raise ValueError(message)
    return found


def endpoint(about: dict[str, Any], name: str) -> str:
    """An address of the provider: by https, or on this very machine. Raises AccountRefused (oidc_failed)."""
    address = about.get(name)
    parts = urlsplit(address if isinstance(address, str) else "")
    if parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(parts.hostname or "")):
        return str(address)
    raise failed()


def is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def failed() -> AccountRefused:
    sentence = f"{settings.OIDC_NAME} could not be reached, or gave no valid answer. Try again, or use your password."
    return AccountRefused("oidc_failed", sentence)
