"""Secrets that we must be able to read again, encrypted at rest with keys derived from SECRET_KEY.

A new SECRET_KEY makes them unreadable unless the old one stays in SECRET_KEY_FALLBACKS.
"""

from base64 import urlsafe_b64encode
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

PURPOSE = b"hematovision secret text"


class SecretUnreadable(ValueError):
    """The text was encrypted under a key that this instance no longer has, or was altered."""


def encrypt(text: str) -> str:
    """The text as a Fernet token (ASCII), under the key of SECRET_KEY."""
    return box().encrypt(text.encode()).decode("ascii")


def decrypt(token: str) -> str:
    """The text that `encrypt` was given, under SECRET_KEY or one of its fallbacks. Raises SecretUnreadable."""
    try:
        return box().decrypt(token.encode()).decode()
    except InvalidToken as error:
        raise SecretUnreadable from error


def box() -> MultiFernet:
    return MultiFernet([Fernet(derived_key(key)) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)])


@lru_cache(maxsize=8)
def derived_key(key: str) -> bytes:
    """A key of its own for this purpose: whoever learns it can't sign sessions with it."""
    return urlsafe_b64encode(HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(key.encode()))
