"""Settings. The environment is read here and nowhere else.

Local mode (no DATABASE_URL, or DTS_LOCAL=1) is for one developer's machine: it makes its own
secret key and, without DATABASE_URL, uses the embedded PostgreSQL (`manage.py db`).
Otherwise DATABASE_URL, SECRET_KEY and ALLOWED_HOSTS must be given.
"""

import os
from pathlib import Path

import environ
from django.templatetags.static import static
from psycopg.conninfo import conninfo_to_dict

from dtsproject import conf, embedded, logs, secret

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
if (BASE_DIR / ".env").exists():
    env.read_env(BASE_DIR / ".env")

# The API whose worker this process is; it needs no database (`run_worker --server`, manage.py).
SERVER = env.str("DTS_SERVER", default="")
# What it shows the API, or `submit --server` does, unless given a file.
TOKEN = env.str("DTS_TOKEN", default="")
LOCAL = env.bool("DTS_LOCAL", default="DATABASE_URL" not in os.environ)
DEBUG = env.bool("DEBUG", default=False)
STATE_DIR = Path(env.str("DTS_STATE_DIR", default=str(BASE_DIR / ".dts")))
SECRET_KEY = env.str("SECRET_KEY", default="") or secret.local_key(
    STATE_DIR, allowed=LOCAL or bool(SERVER)
)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
for name, example in (
    ("DATABASE_URL", "postgresql://dts:password@db.example.org/dts"),
    ("ALLOWED_HOSTS", "dts.example.org"),
):
    if not (LOCAL or SERVER or os.environ.get(name)):
        raise environ.ImproperlyConfigured(f"Set {name}, such as {example}")
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
ORCH_HOST = env.str("ORCH_HOST", default="127.0.0.1")
try:
    ORCH_PORT = env.int("ORCH_PORT", default=8080)
except ValueError as error:
    raise environ.ImproperlyConfigured("ORCH_PORT must be a port number") from error

# The pages and the API need these, the loops do not (manage.py).
PAGE_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
LOOP_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "dtsproject",
    "jobs",
    "workers",
    "scheduling",
]
INSTALLED_APPS = [*PAGE_APPS, *LOOP_APPS]
MIDDLEWARE = [
    "dtsproject.middleware.RequestId",
    "dtsproject.middleware.ContentSecurityPolicy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "dtsproject.urls"
LOGIN_REDIRECT_URL = "admin:index"
WSGI_APPLICATION = "dtsproject.wsgi.application"
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
            ],
        },
    },
]

# libpq itself reads the URL, so sockets, several hosts and every libpq option work in it.
try:
    DATABASE_URL = "" if SERVER else env.str("DATABASE_URL", default="") or embedded.Cluster().url()
except embedded.EmbeddedError as error:
    raise environ.ImproperlyConfigured(str(error)) from error
_database = conninfo_to_dict(DATABASE_URL)
DATABASES = {
    "default": {
        "ENGINE": "dtsproject.postgresql",
        "NAME": _database.pop("dbname", ""),
        "USER": _database.pop("user", ""),
        "PASSWORD": _database.pop("password", ""),
        "HOST": _database.pop("host", ""),
        "PORT": _database.pop("port", ""),
        "OPTIONS": {
            "connect_timeout": 5,
            # A server whose machine or network is gone counts as away after some ten seconds.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            # For what is prepared (jobs/statements.py); all else is planned as it comes. Django
            # switches preparing off unless there is a threshold.
            "prepare_threshold": 5,
            # Compiling a plan (jit) takes longer than any statement here may. And what is planned
            # while a queue is empty or short must suit it when it is long, or full of dead rows:
            # by index even there.
            "options": "-c plan_cache_mode=force_generic_plan -c jit=off -c enable_seqscan=off",
            **_database,
        },
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }
}
if SERVER:
    DATABASES = {}
# NOTIFY does not pass a transaction pooler: name PostgreSQL itself here where one stands between.
LISTEN_URL = env.str("DTS_LISTEN_URL", default="")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

STATIC_URL = "static/"
# Locally files are served from where the packages keep them.
STATIC_ROOT = None if LOCAL else BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = LOCAL
if not LOCAL:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }

# Django's own defaults: nosniff, no frames, Referrer-Policy same-origin, HttpOnly, SameSite=Lax.
HTTPS = env.bool("HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
# HSTS for other names of the domain, and for browsers' lists, is not for DTS to promise.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
# A job of 100,000 tasks in one request is about 20 MB of JSON.
DATA_UPLOAD_MAX_MEMORY_SIZE = 32 * 1024 * 1024

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "dtsproject.negotiation.StaffMayBrowse",
    "DEFAULT_PARSER_CLASSES": ["dtsproject.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "dtsproject.problems.exception_handler",
    # The first one's challenge is the WWW-Authenticate of every 401.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "jobs.authentication.BearerToken",
        "jobs.authentication.StaffSession",
        "jobs.authentication.NoToken",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["jobs.authentication.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["jobs.throttles.Clients"],
    "DEFAULT_METADATA_CLASS": None,
    "URL_FORMAT_OVERRIDE": None,
    "LIST_SERIALIZER_ERRORS_AS_DICT": True,
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.NamespaceVersioning",
    "DEFAULT_VERSION": "v1",
    "ALLOWED_VERSIONS": ["v1"],
}
SPECTACULAR_SETTINGS = {
    "TITLE": "DTS",
    "DESCRIPTION": "Submit jobs, watch tasks, run workers.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    # What a change must have is no less required as it comes by PATCH.
    "COMPONENT_SPLIT_PATCH": False,
    "SERVE_INCLUDE_SCHEMA": False,
    "GET_LIB_DOC_EXCLUDES": "jobs.api.base.undocumented",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "dtsproject.openapi.finish",
    ],
    "ENUM_NAME_OVERRIDES": {
        "TaskStatus": "jobs.states.Status",
        "JobState": "jobs.api.serializers.JOB_STATES",
        "Kind": "jobs.states.Kind",
        "Outcome": "jobs.states.Outcome",
        "WorkerState": "workers.models.State",
        "ScheduleState": "scheduling.api.serializers.STATES",
        "Overlap": "scheduling.models.Overlap",
        "CatchUp": "scheduling.models.CatchUp",
        "FiringOutcome": "scheduling.models.Outcome",
    },
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # Without this the page would show the schema to validator.swagger.io.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},
}
UNFOLD = {
    "SITE_TITLE": "DTS",
    "SITE_HEADER": "DTS",
    "SITE_SUBHEADER": "Distributed task scheduler",
    "SITE_SYMBOL": "schedule",
    "SITE_URL": None,
    "DASHBOARD_CALLBACK": "scheduling.admin.dashboard",
    "SIDEBAR": {"navigation": "scheduling.admin.navigation"},
    "STYLES": [lambda request: static("dts/admin.css")],
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("dts/icon.svg")},
    ],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
}

# Loops touch this file each round, for a probe that looks at its age.
LIVENESS_FILE = env.str("DTS_LIVENESS_FILE", default="")

LOGGING_CONFIG = None
logs.configure(as_json=env.str("DTS_LOG_FORMAT", default="console") == "json")
DTS = conf.from_environ(os.environ)
