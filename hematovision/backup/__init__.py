"""Backups: everything that an instance holds, in one folder, and an empty instance made whole from it.

One form for both databases (rows as JSON), so a backup of SQLite is also the way to PostgreSQL. The folder:

    manifest.json      what it is, the migrations, the rows of each table; says which files.sha256 belongs to it
    files.sha256       the SHA-256 of each file, as `sha256sum --check` reads it
    database/          a file a table: <table>.jsonl.gz
    media/             the files that the rows name
    models/            the bundles of the registered model versions
    audit-heads.jsonl  the heads of the audit trail's chain, where there are any

No secret is in it: the restored instance needs SECRET_KEY and the audit key of the old one.
"""
