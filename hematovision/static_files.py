"""Static files under names that hold their hash, so that browsers may keep them for ever."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Hashes what scripts import from each other as well."""

    support_js_module_import_aggregation = True
