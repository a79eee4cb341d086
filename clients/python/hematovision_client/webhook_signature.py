"""Whether a webhook message is genuine."""

import hashlib
import hmac
import time


def verify_signature(
    secret: str, header: str | None, body: bytes, tolerance: float = 300, *, now: float | None = None
) -> bool:
    """Whether HematoVision sent this body within `tolerance` seconds.

    `header` is `HematoVision-Signature`, `body` the bytes as they came, before anything is parsed. Never raises.
    """
    parts = [part.strip().partition("=")[::2] for part in (header or "").split(",")]
    stamps = [value for name, value in parts if name == "t"]
    if len(stamps) != 1 or not stamps[0].isascii() or not stamps[0].isdecimal() or len(stamps[0]) > 12:
        return False
    if abs((time.time() if now is None else now) - int(stamps[0])) > tolerance:
        return False
    expected = hmac.new(secret.encode(), stamps[0].encode() + b"." + body, hashlib.sha256).hexdigest().encode()
    # There may be two: after a rotation the secret before signs as well, for 24 hours.
    signatures = [value.encode("utf-8", "replace") for name, value in parts if name == "v1"]
    return any(hmac.compare_digest(expected, signature) for signature in signatures)
