"""All settings, in one file. Every value that differs between places comes from the environment.

An empty environment means the embedded instance that `make run` keeps under `var/`. `PRODUCTION=1` is the one
switch that makes an instance a real one: it is never inferred.
"""

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from hematovision import lost_connections
from hematovision.environment import Environment
from hematovision.kept_key import kept_key
from hematovision.log_lines import described
from hematovision.media_storage import media_storage

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment()
env.smart_cast = False
environ.Env.read_env(BASE_DIR / ".env")


def secret(name: str, default: str = "") -> str:
    """Read NAME, or the file that NAME_FILE points to (Docker and Kubernetes hand secrets over as files)."""
    path = env.str(f"{name}_FILE", "")
    if not path:
        return str(env.str(name, default))
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        message = f"{name}_FILE names a file that cannot be read: {path}"
        raise ImproperlyConfigured(message) from error


# --- The instance ----------------------------------------------------------------------------------------------
VAR_DIR = Path(env.str("HEMATOVISION_VAR", str(BASE_DIR / "var"))).resolve()
PRODUCTION = env.bool("PRODUCTION", False)
DEMO = env.bool("DEMO", False)
HOST = env.str("HOST", "127.0.0.1")
PORT = env.str("PORT", "8000")
DEBUG = False

SECRET_KEY = secret("SECRET_KEY")
if not SECRET_KEY:
    if PRODUCTION:
        message = "PRODUCTION=1 needs SECRET_KEY or SECRET_KEY_FILE."
        raise ImproperlyConfigured(message)
    SECRET_KEY = kept_key(VAR_DIR / "secret_key")
# Keys of before: what they signed or encrypted stays readable.
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
# Seals the audit trail. It must not be kept where the database is: who has both can forge the trail.
AUDIT_KEY = secret("AUDIT_KEY")
if not AUDIT_KEY:
    if PRODUCTION:
        message = (
            "PRODUCTION=1 needs AUDIT_KEY or AUDIT_KEY_FILE: 50 or more random characters, kept apart from backups."
        )
        raise ImproperlyConfigured(message)
    AUDIT_KEY = kept_key(VAR_DIR / "audit_key")
AUDIT_KEY_FALLBACKS = env.list("AUDIT_KEY_FALLBACKS", default=[])
AUDIT_HEADS_FILE = Path(env.str("AUDIT_HEADS_FILE", str(VAR_DIR / "audit-heads.jsonl")))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


LOOPBACK_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
# A demo that is shown on purpose (DEMO=1) may be reached by any name; a real instance names its own.
DEFAULT_HOSTS = [] if PRODUCTION else ["*"] if DEMO and not is_loopback(HOST) else LOOPBACK_HOSTS
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=DEFAULT_HOSTS)
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

# --- Applications ----------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "hematovision.apps.WiringConfig",
    "hematovision.apps.AuditDeskConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "hematovision.apps.UsedStaticFilesConfig",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "django_structlog",
    # Ours come last, so that our admin can take out what it does not want of the others'.
    "accounts",
    "classifier",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "hematovision.policy.PolicyMiddleware",
    "django_permissions_policy.PermissionsPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "hematovision.charset.Utf8OnlyMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "hematovision.logs.RequestLogMiddleware",
    "accounts.idle.IdleSignOutMiddleware",
    "accounts.middleware.SignInRequiredMiddleware",
    "accounts.middleware.SecondFactorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "classifier.emergency_middleware.EmergencyMiddleware",
    "classifier.api.deprecation.DeprecationMiddleware",
]

ROOT_URLCONF = "hematovision.urls"
WSGI_APPLICATION = "hematovision.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "hematovision.context.instance",
                "accounts.context.signing_in",
            ],
        },
    },
]

# --- Database --------------------------------------------------------------------------------------------------
DATABASE_URL = secret("DATABASE_URL", f"sqlite:///{VAR_DIR / 'db.sqlite3'}")
DATABASES: dict[str, dict[str, Any]] = {"default": environ.Env.db_url_config(DATABASE_URL)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        # IMMEDIATE: a transaction takes the write lock when it starts, so it waits in line instead of failing half-way.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=20000;"
        ),
    }
    # The tests use a file as well: an in-memory database locks in other ways than the one that people use.
    DATABASES["default"]["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}
else:
    DATABASES["default"] |= {"ENGINE": "hematovision.postgresql", "CONN_HEALTH_CHECKS": True}
    DATABASES["default"]["OPTIONS"] = lost_connections.POSTGRESQL | DATABASES["default"].get("OPTIONS", {})
# Each thread keeps its connection: opening one costs as much as an upload's statements, of SQLite's as well.
DATABASES["default"]["CONN_MAX_AGE"] = 60
# Our own token model stands in for knox's, whose migrations would still make the table that nobody uses.
MIGRATION_MODULES = {"knox": None}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Sign-in attempts are counted where all web processes see them, without needing the broker.
# With Django's 300 entries, guesses at many addresses would push out the counts of the others.
CACHE_SIZE = {"MAX_ENTRIES": 100_000}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache", "OPTIONS": CACHE_SIZE}
}

# --- Queue (https://docs.celeryq.dev/en/stable/userguide/configuration.html) --------------------------------------


def broker_url() -> str:
    """REDIS_URL, else the embedded broker that the running instance has announced."""
    announced = VAR_DIR / "broker-url"
    if url := secret("REDIS_URL"):
        return url
    return announced.read_text().strip() if announced.exists() else f"redis+socket://{VAR_DIR}/no-broker.sock"


# How long a worker may hold an image. It must exceed the hard time limit, so that no live worker loses its claim.
CLAIM_SECONDS = env.int("CLAIM_SECONDS", 60)
SWEEP_SECONDS = env.int("SWEEP_SECONDS", 30)
TASK_SECONDS = env.int("TASK_SECONDS", 45)
MICRO_BATCH_SIZE = env.int("MICRO_BATCH_SIZE", 32)
MODEL_THREADS = env.int("MODEL_THREADS", 2)
# Where more waits, service accounts are asked to come again; people's pictures are still taken.
QUEUE_LIMIT = env.int("QUEUE_LIMIT", 20_000)

CELERY_BROKER_URL = broker_url()
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# With kombu's defaults the message of a killed worker comes back after about 105 s, whatever the visibility timeout.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 900,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "socket_connect_timeout": 2,
    # A broker that hangs must not keep an upload hanging; workers wait for messages without blocking on the socket.
    "socket_timeout": 3,
    "retry_on_timeout": False,
    # A wake-up that can't be sent must not keep an upload waiting: the sweep wakes the workers later.
    "max_retries": 0,
    "interval_start": 0,
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Each holds a model of its own, MODEL_THREADS threads wide.
CELERY_WORKER_CONCURRENCY = env.int("WORKER_PROCESSES", 1)
CELERY_TASK_TIME_LIMIT = TASK_SECONDS
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
HOURLY: dict[str, Any] = {"schedule": timedelta(hours=1), "options": {"expires": 3600}}
CELERY_BEAT_SCHEDULER = "hematovision.beat.SteadyScheduler"
CELERY_BEAT_SCHEDULE = {
    "forget-idempotent-requests": {"task": "classifier.forget_idempotent_requests", **HOURLY},
    "forget-webhook-messages": {"task": "classifier.forget_webhook_messages", **HOURLY},
    "seal-audit": {
        "task": "accounts.seal_audit",
        "schedule": timedelta(seconds=20),
        "options": {"expires": 60},
    },
    "keep-stored-files": {
        "task": "classifier.keep_stored_files",
        "schedule": timedelta(minutes=10),
        "options": {"expires": 600},
    },
    "sweep-expired-claims": {
        "task": "classifier.sweep_expired_claims",
        "schedule": timedelta(seconds=SWEEP_SECONDS),
        "options": {"expires": SWEEP_SECONDS},
    },
}

# --- Files -----------------------------------------------------------------------------------------------------
# Originals are private: no URL is mapped to this folder.
MEDIA_ROOT = Path(env.str("MEDIA_ROOT", str(VAR_DIR / "media")))
# A banner asks for room when less than this share, or this many bytes, of the disk is free.
DISK_FREE_WARNING = (env.float("DISK_FREE_WARNING_FRACTION", 0.1), env.int("DISK_FREE_WARNING_BYTES", 2 * 1024**3))
# Below this the instance is not ready: it could not be sure to store the next picture.
DISK_FREE_FLOOR = env.int("DISK_FREE_FLOOR_BYTES", 200 * 1024**2)
MAX_IMAGE_BYTES = env.int("MAX_IMAGE_BYTES", 25 * 1024**2)
MAX_IMAGE_PIXELS = env.int("MAX_IMAGE_PIXELS", 40_000_000)
MIN_IMAGE_SIDE = 32
UPLOADS_AT_ONCE = env.int("UPLOADS_AT_ONCE", 16)  # pictures that one web process looks at together
MAX_JSON_BYTES = 1024**2
# An archive of a batch: its bytes, the files in it, what it unpacks to, and how many times its size that may be.
MAX_ARCHIVE_BYTES = env.int("MAX_ARCHIVE_BYTES", 2 * 1024**3)
MAX_ARCHIVE_MEMBERS = env.int("MAX_ARCHIVE_MEMBERS", 10_000)
MAX_ARCHIVE_UNPACKED_BYTES = env.int("MAX_ARCHIVE_UNPACKED_BYTES", 20 * 1024**3)
MAX_ARCHIVE_RATIO = env.int("MAX_ARCHIVE_RATIO", 100)
# How long the file of an export can be fetched.
EXPORT_DAYS = env.int("EXPORT_DAYS", 7)
MODEL_BUNDLES = Path(env.str("MODEL_BUNDLES", str(BASE_DIR / "ml" / "artifacts")))
# One form may carry at most this many files; the script on the page sends them one by one, without such a limit.
DATA_UPLOAD_MAX_NUMBER_FILES = 200
FILE_UPLOAD_HANDLERS = ["classifier.uploads.CappedUploadHandler"]
FILE_UPLOAD_PERMISSIONS = 0o600
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o700

STATIC_URL = "static/"
STATIC_ROOT = Path(env.str("STATIC_ROOT", str(VAR_DIR / "static")))
STATICFILES_DIRS = [BASE_DIR / "static"]
# Source maps are for developers' tools only, and the biggest of the static files.
WHITENOISE_SKIP_COMPRESS_EXTENSIONS = ["map", "png", "jpg", "webp", "gz", "woff", "woff2"]
STORAGES = {
    "default": media_storage(env, secret),
    "staticfiles": {"BACKEND": "hematovision.static_files.HashedStaticFiles"},
}

# --- Accounts (https://docs.allauth.org/en/latest/account/configuration.html) -----------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.auth_backend.LaboratoryBackend"]
ACCOUNT_ADAPTER = "accounts.adapter.ClosedSignUpAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
ACCOUNT_SESSION_REMEMBER = False
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_EMAIL_SUBJECT_PREFIX = "HematoVision: "
# Failed sign-ins lock the address (key), and slow down where they come from (ip); codes of the second factor as well.
ACCOUNT_RATE_LIMITS = {"login": "60/m/ip", "login_failed": "30/m/ip,5/5m/key"}
MFA_ADAPTER = "accounts.second_factor_adapter.SecondFactorAdapter"
MFA_TOTP_ISSUER = "HematoVision"
# A code is good for a step before and after its own, as clocks differ; none opens twice.
MFA_TOTP_TOLERANCE = 1
MFA_FORMS = {"authenticate": "accounts.code_forms.SignInForm", "reauthenticate": "accounts.code_forms.AgainForm"}
# A platform operator needs a second factor; for a laboratory's people its administrator decides.
OPERATOR_SECOND_FACTOR = env.bool("OPERATOR_SECOND_FACTOR", PRODUCTION)
# Without activity for so long, a session ends; 0: never. The page warns before.
IDLE_SECONDS = 60 * env.int("IDLE_MINUTES", 15)
IDLE_WARNING_SECONDS = min(120, IDLE_SECONDS // 2)
# Sign-in by the laboratory's own identity provider (OpenID Connect): off unless it is named.
OIDC_ISSUER = env.str("OIDC_ISSUER", "")
OIDC_CLIENT_ID = env.str("OIDC_CLIENT_ID", "")
OIDC_CLIENT_SECRET = secret("OIDC_CLIENT_SECRET")
OIDC_NAME = env.str("OIDC_NAME", "single sign-on")
OIDC_SATISFIES_SECOND_FACTOR = env.bool("OIDC_SATISFIES_SECOND_FACTOR", False)
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

# --- E-mail: without a server, messages are kept as files that an operator can read ---------------------------------
EMAIL_URL = secret("EMAIL_URL")
if EMAIL_URL:
    vars().update(environ.Env.email_url_config(EMAIL_URL))
else:
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = VAR_DIR / "mail"
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "hematovision@localhost")

# --- API -------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.tokens.ApiTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["classifier.api.permissions.MayDoVerb"],
    "DEFAULT_THROTTLE_CLASSES": ["classifier.api.throttles.PerToken"],
    "DEFAULT_PARSER_CLASSES": ["classifier.api.parsers.BoundedJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "classifier.paging.NewestFirst",
    "DEFAULT_SCHEMA_CLASS": "classifier.api.description.DescribedView",
    "EXCEPTION_HANDLER": "classifier.api.errors.problem_response",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "COERCE_DECIMAL_TO_STRING": False,
}
# Of one token, in each web process; ten seconds' worth may come at once. docs/api.md says why it is so generous.
API_REQUESTS_PER_SECOND = env.int("API_REQUESTS_PER_SECOND", 1000)
KNOX_TOKEN_MODEL = "accounts.ApiToken"  # noqa: S105
REST_KNOX = {"AUTH_HEADER_PREFIX": "Token", "TOKEN_TTL": timedelta(days=365)}
SPECTACULAR_SETTINGS = {
    "TITLE": "HematoVision API",
    "DESCRIPTION": "Open cases, upload cell images, read their pre-classifications, review them, and sign reports.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "CellTypeEnum": "ml.labels.CELL_TYPES",
        "ImageStatusEnum": "classifier.models.ImageStatus",
        "CaseStatusEnum": "classifier.models.CaseStatus",
        "BatchStateEnum": "classifier.models.BatchState",
        "ReportKindEnum": "classifier.models.ReportKind",
        "AmendmentKindEnum": "classifier.models.AmendmentKind",
        "NotificationKindEnum": "classifier.models.NotificationKind",
        "TrialStateEnum": "classifier.trials.TrialState",
    },
}

# --- Webhooks --------------------------------------------------------------------------------------------------
# Messages go to public addresses by https; here are the networks (10.1.2.0/24, ...) that are allowed besides.
try:
    WEBHOOK_ALLOWED_NETWORKS = [ipaddress.ip_network(each) for each in env.list("WEBHOOK_ALLOWED_NETWORKS", default=[])]
except ValueError as error:
    message = f"WEBHOOK_ALLOWED_NETWORKS holds what is no network: {error}"
    raise ImproperlyConfigured(message) from error
# Certificates of authorities that are trusted besides those of the system, in one PEM file.
WEBHOOK_CA_FILE = env.str("WEBHOOK_CA_FILE", "")
if WEBHOOK_CA_FILE and not os.access(WEBHOOK_CA_FILE, os.R_OK):
    message = f"WEBHOOK_CA_FILE names a file that cannot be read: {WEBHOOK_CA_FILE}"
    raise ImproperlyConfigured(message)
# For how long the delivery log holds what was delivered or given up.
WEBHOOK_KEEP_DAYS = env.int("WEBHOOK_KEEP_DAYS", 90)
# For all of one request: resolving, connecting, sending and the answer.
WEBHOOK_SECONDS = env.int("WEBHOOK_SECONDS", 5)

# The threads of a web process (`--threads` in supervisor.py and Dockerfile). A quarter of them may wait for clients.
WEB_THREADS = 4

# How many reverse proxies stand before the web server: so many addresses at the end of X-Forwarded-For are believed.
TRUSTED_PROXIES = env.int("TRUSTED_PROXIES", 0)
ALLAUTH_TRUSTED_PROXY_COUNT = TRUSTED_PROXIES

# --- Security --------------------------------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "manifest-src": [SELF],
    }
}
PERMISSIONS_POLICY: dict[str, list[str]] = {
    feature: [] for feature in ("camera", "display-capture", "geolocation", "microphone", "payment", "usb")
}
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_NAME = "hematovision_session"
CSRF_COOKIE_NAME = "hematovision_csrf"
SESSION_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "hematovision.error_pages.csrf_failure"
if PRODUCTION:
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", True)
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
    SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", 365 * 24 * 3600)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# --- Metrics ---------------------------------------------------------------------------------------------------
# Whoever sends it as `Authorization: Bearer ...` may read /metrics; without one, only this very machine may.
METRICS_TOKEN = secret("METRICS_TOKEN")

# --- Language and time -----------------------------------------------------------------------------------------
LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = ["hematovision.formats"]
TIME_ZONE = env.str("TIME_ZONE", "UTC")
USE_TZ = True

# --- Logs: one line an event, with the request's id; never a query string, a form field or a file name ------------
DJANGO_STRUCTLOG_CELERY_ENABLED = True
LOG_FORMAT = env.str("LOG_FORMAT", "json" if PRODUCTION else "console")
LOGGING = described(LOG_FORMAT, env.str("LOG_LEVEL", "INFO"))
