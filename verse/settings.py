"""Django's settings and Verse's own: the only reader of environment variables and ``.env``."""

import os
import re
import tomllib
from pathlib import Path

from verse import databases
from verse.broker_url import BROKER_URL
from verse.cross_origin import ALLOWED_HEADERS, EXPOSED_HEADERS
from verse.env_file import read_env_file
from verse.environment import PROTOCOLS, SAMPLERS, Environment
from verse.log_config import logging_config
from verse.price import PRICE, is_price

BASE_DIR = Path(__file__).resolve().parent.parent
# This release: shown by /readyz, by rag_status, and in the names of the servers' database sessions.
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]
HOME = BASE_DIR / ".verse"  # everything that Verse stores outside the database

env = Environment({**read_env_file(BASE_DIR / ".env", os.environ), **os.environ})

# All secrets first: a line that refuses another variable must not show their values.
OPENAI_API_KEY = env.secret("OPENAI_API_KEY")
LLM_API_KEY = env.secret("LLM_API_KEY") or OPENAI_API_KEY
env.secret("SECRET_KEY")
CELERY_BROKER_URL = env.broker("CELERY_BROKER_URL")
METRICS_TOKEN = env.secret("METRICS_TOKEN")
env.secrets.update(re.split(r"[=,\s]+", env.text("OTEL_EXPORTER_OTLP_HEADERS")))
_server = env.database("DATABASE_URL")
_direct = env.database("DATABASE_DIRECT_URL") or _server
_replica = env.database("DATABASE_REPLICA_URL")
# The setting that commands connect by, for their error messages.
DATABASE_SETTING = "DATABASE_URL" if _direct is _server else "DATABASE_DIRECT_URL"

# --- the site ---------------------------------------------------------------------------------
DEBUG = env.boolean("DEBUG", default=False)
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", "localhost,127.0.0.1")
CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS")
# Origins whose pages may call the API with a token; never with a session, so without credentials.
CORS_ALLOWED_ORIGINS = env.origins("CORS_ALLOWED_ORIGINS")
CORS_URLS_REGEX = r"^/(api|v1)/"
CORS_ALLOW_HEADERS, CORS_EXPOSE_HEADERS = ALLOWED_HEADERS, EXPOSED_HEADERS
# Browsers do not send secure cookies over plain http, so they need a site with https.
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE = bool(CSRF_TRUSTED_ORIGINS) and all(
    origin.startswith("https://") for origin in CSRF_TRUSTED_ORIGINS
)
SECURE_HSTS_SECONDS = env.integer("HSTS_SECONDS", 0, minimum=0)
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # whether subdomains have https too is not for Verse to say
    "security.W008",  # the proxy redirects to https; probes come without it
    "security.W021",  # nor does Verse ask browsers for their preload list
]
RETENTION_DAYS = env.limit("RETENTION_DAYS", maximum=36_500)
AUDIT_DAYS = env.integer("AUDIT_DAYS", 365, minimum=1, maximum=36_500)
PORT = env.integer("PORT", 8000, minimum=1, maximum=65535)
WEB_CONCURRENCY = env.integer("WEB_CONCURRENCY", os.cpu_count() or 1, maximum=256)
SHUTDOWN_GRACE_S = env.seconds("SHUTDOWN_GRACE", 25)
LOG_FORMAT = env.choice("LOG_FORMAT", "text", ("text", "json"))
METRICS_PORT = env.integer("METRICS_PORT", 0, minimum=0, maximum=65535)  # of workers; 0: none
# Where traces are sent, if anywhere: docs/observability.md. OpenTelemetry reads all OTEL_* itself.
OTEL_ENDPOINT = env.url("OTEL_EXPORTER_OTLP_ENDPOINT", like="http://127.0.0.1:4318")
OTEL_PROTOCOL = env.choice("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOLS[0], PROTOCOLS)
env.choice("OTEL_TRACES_SAMPLER", SAMPLERS[0], SAMPLERS)  # OpenTelemetry would take any
OTEL = {"OTEL_EXPORTER_OTLP_PROTOCOL": OTEL_PROTOCOL}
OTEL |= {name: value for name, value in env.values.items() if name.startswith("OTEL_") and value}
if OTEL.get("OTEL_TRACES_EXPORTER") == "none" or OTEL.get("OTEL_SDK_DISABLED", "") == "true":
    OTEL_ENDPOINT = ""  # OpenTelemetry's own ways to turn it off
MAX_BODY_BYTES = 1_000_000  # docs/api.md: a larger request is answered 413
IMPORT_MAX_MB = env.integer("IMPORT_MAX_MB", 1000)
MAX_COMPLETION_BODY_BYTES = 20_000_000  # of /v1/: a whole conversation, with images

# --- the database -----------------------------------------------------------------------------
DATABASE_POOL_SIZE = env.integer("DATABASE_POOL_SIZE", 10, maximum=1000)
EMBEDDED_POSTGRES_VERSION = int(env.choice("EMBEDDED_POSTGRES_VERSION", "16", ("16", "18")))
_embedded = {
    "ENGINE": "embedded_postgres",
    "NAME": "verse",
    "EMBEDDED": {"home": HOME, "version": EMBEDDED_POSTGRES_VERSION},
}
SECRET_KEY = env.secret_key(
    "SECRET_KEY", HOME / "secret_key", may_generate=DEBUG or _server is None
)
# Commands and tests connect directly; the server uses these (verse/server_settings.py).
DATABASES = {"default": databases.direct(_direct or _embedded)}
SERVER_DATABASE = databases.pooled(
    _server or _embedded,
    version=VERSION,
    size=DATABASE_POOL_SIZE,
    # With DATABASE_DIRECT_URL, DATABASE_URL may lead to a pooler.
    is_behind_pooler=_direct != _server,
)
# None: no replica. Servers read from it; commands and workers, too, record what users write.
REPLICA_DATABASE = _replica and databases.replica(
    _replica, version=VERSION, size=DATABASE_POOL_SIZE
)
REPLICA_MAX_LAG_S = env.seconds("REPLICA_MAX_LAG", 1)

# --- the language model -----------------------------------------------------------------------
LLM = env.choice("LLM", "openai", ("openai", "local"))
LLM_MODEL = env.text("LLM_MODEL", "gpt-4o-mini")
OPENAI_BASE_URL = env.url("OPENAI_BASE_URL", "https://api.openai.com/v1")
LLM_BASE_URL = env.url("LLM_BASE_URL", OPENAI_BASE_URL)
LLM_CONFIGURED = LLM == "local" or bool(LLM_API_KEY or env.text("LLM_BASE_URL"))
LLM_TIMEOUT_S = env.seconds("LLM_TIMEOUT", 60)
LLM_CONTEXT_TOKENS = env.integer(
    "LLM_CONTEXT_TOKENS", 2048 if LLM == "local" else 8192, minimum=512
)
LLM_MAX_TOKENS = env.integer("LLM_MAX_TOKENS", 512 if LLM == "local" else 1024)
if LLM_MAX_TOKENS > LLM_CONTEXT_TOKENS // 2:
    env.refuse(
        "LLM_MAX_TOKENS", f"at most half of LLM_CONTEXT_TOKENS, here {LLM_CONTEXT_TOKENS // 2}"
    )
LLM_EXTRA_BODY = env.json_object("LLM_EXTRA_BODY")
LLM_PRICE_PER_1M = env.json_object("LLM_PRICE_PER_1M")
if LLM_PRICE_PER_1M and not is_price(LLM_PRICE_PER_1M):
    env.refuse("LLM_PRICE_PER_1M", PRICE)
CHAT_HISTORY_LIMIT = env.integer("CHAT_HISTORY_LIMIT", 40, minimum=0, maximum=1000)
THROTTLE_MESSAGES = env.rate("THROTTLE_MESSAGES", "60/min")
STREAMS_PER_USER = env.integer("STREAMS_PER_USER", 5, maximum=10_000)
DAILY_TOKENS_PER_USER = env.limit("DAILY_TOKENS_PER_USER")
DAILY_TOKENS = env.limit("DAILY_TOKENS")

# --- memory -----------------------------------------------------------------------------------
EMBEDDINGS = env.choice("EMBEDDINGS", "openai", ("openai", "local", "none"))
EMBEDDING_MODEL = env.text("EMBEDDING_MODEL", "text-embedding-3-small")
if EMBEDDINGS == "local" and not EMBEDDING_MODEL.startswith("text-embedding-"):  # OpenAI's
    EMBEDDING_MODEL = env.bundled_model("EMBEDDING_MODEL")
EMBEDDING_TIMEOUT_S = env.seconds("EMBEDDING_TIMEOUT", 10)
# None: the price of retrieval/embeddings/cost.py
EMBEDDING_PRICE_PER_1K = env.dollars("EMBEDDING_PRICE_PER_1K")
EMBEDDING_BUDGET_USD = env.dollars("EMBEDDING_BUDGET_USD")
EMBED_QUEUE = env.choice("EMBED_QUEUE", "inline", ("inline", "procrastinate", "celery"))
if EMBED_QUEUE == "celery" and not CELERY_BROKER_URL:
    required = f"{BROKER_URL}; it must be set with EMBED_QUEUE=celery"
    env.refuse("CELERY_BROKER_URL", required, show=False)
# None: no limit
EMBEDDING_RATE_TOKENS_PER_MIN = env.limit("EMBEDDING_RATE_TOKENS_PER_MIN")
RAG_ENABLED = env.boolean("RAG_ENABLED", default=True)
RAG_TIMEOUT_S = env.seconds("RAG_TIMEOUT", 3)
RAG_CONTEXT_LIMIT = env.integer("RAG_CONTEXT_LIMIT", 5, minimum=0, maximum=50)
RAG_CONTEXT_TOKENS = env.integer("RAG_CONTEXT_TOKENS", 1500, minimum=0)
RAG_MIN_SIMILARITY = env.similarity("RAG_MIN_SIMILARITY")

# --- Django -----------------------------------------------------------------------------------
INSTALLED_APPS = [
    "chat.pages",  # before the admin, of which it changes the first page
    # Simple: only verse/urls.py loads the admin's pages, so a command starts 0.6 s sooner.
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "chat",
    "retrieval",
    "verse",
    # Its tables, its admin and its commands are there only with this engine.
    *(["procrastinate.contrib.django"] if EMBED_QUEUE == "procrastinate" else []),
]
PROCRASTINATE_IMPORT_PATHS = ["retrieval.embed_queue.procrastinate_engine"]
MIDDLEWARE = [
    # All synchronous: they run with the view in one step, verse/asgi_handler.py.
    *(["corsheaders.middleware.CorsMiddleware"] if CORS_ALLOWED_ORIGINS else []),
    "django.middleware.security.SecurityMiddleware",
    "verse.content_security.ContentSecurityPolicy",
    "verse.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "verse.middleware.AuthenticationMiddleware",
    "verse.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "verse.urls"
ASGI_APPLICATION = "verse.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/accounts/login/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
    )
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
STATIC_URL = "/static/"
# collectstatic fills it for the image; without it the packages' own files are served.
STATIC_ROOT = BASE_DIR / "static"
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_COMPLETION_BODY_BYTES

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "chat.auth.api_tokens.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "chat.errors.answer_error",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Verse",
    "DESCRIPTION": "A chat backend that remembers.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "TAGS": [
        {"name": "auth", "description": "API tokens."},
        {"name": "chats", "description": "Conversations about anything."},
        {"name": "passages", "description": "Conversations about a text."},
        {"name": "memory", "description": "What Verse can recall about you."},
        {"name": "usage", "description": "How many tokens your turns use."},
    ],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "chat.api.openapi_schema.document_errors",
        "chat.api.openapi_examples.add_examples",
    ],
}
LOGGING = logging_config(LOG_FORMAT)
