"""Where originals are kept, from the environment: the folder MEDIA_ROOT, or the bucket that S3_BUCKET names."""

from collections.abc import Callable
from typing import Any


def media_storage(env: Any, secret: Callable[[str], str]) -> dict[str, Any]:
    """The entry of STORAGES. `env` reads variables, `secret` also the file that NAME_FILE names."""
    bucket = env.str("S3_BUCKET", "")
    if not bucket:
        return {"BACKEND": "classifier.storage.PrivateStorage"}
    return {
        "BACKEND": "classifier.bucket_storage.BucketStorage",
        "OPTIONS": {
            "bucket": bucket,
            "prefix": env.str("S3_PREFIX", ""),
            "endpoint_url": env.str("S3_ENDPOINT_URL", ""),
            "region": env.str("S3_REGION", "us-east-1"),
            "addressing": env.str("S3_ADDRESSING", "auto"),
            "access_key": secret("S3_ACCESS_KEY"),
            "secret_key": secret("S3_SECRET_KEY"),
        },
    }
