"""A plain site with the apps in ``BENCH_APPS`` and the database in ``DATABASE_URL``."""

import environ

env = environ.Env()

SECRET_KEY = "a key for the benchmark, and long enough for Django's own check of it"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "bench.urls"
STATIC_URL = "/static/"

PLAIN_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
]
INSTALLED_APPS = [*PLAIN_APPS, *env.list("BENCH_APPS", default=["airisk_oauth"])]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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

DATABASES = {"default": env.db("DATABASE_URL", default="sqlite://:memory:")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # As a production site would set them.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }

# Discarded, because writing a log line for every renewal would be part of what is measured.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "root": {"handlers": ["null"], "level": "WARNING"},
}

AIRISK_URL = env("BENCH_AIRISK_URL", default="http://127.0.0.1:1")
AIRISK_OAUTH = {
    "default": {
        "BASE_URL": AIRISK_URL,
        "CLIENT_ID": "client-1",
        "CLIENT_SECRET": "secret-1",
        "REDIRECT_URI": "http://127.0.0.1/airisk/callback/",
    },
}

ESI_SSO_CLIENT_ID = "client-1"
ESI_SSO_CLIENT_SECRET = "secret-1"
ESI_SSO_CALLBACK_URL = "http://127.0.0.1/sso/callback/"
ESI_USER_CONTACT_EMAIL = "staff@example.com"
ESI_CODE_EXCHANGE_URL = f"{AIRISK_URL}/refresh"

AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
if "social_django" in INSTALLED_APPS:
    AUTHENTICATION_BACKENDS.append("bench.social.AIRiskOAuth2")
SOCIAL_AUTH_AIRISK_KEY = "client-1"
SOCIAL_AUTH_AIRISK_SECRET = "secret-1"
LOGIN_REDIRECT_URL = "/airisk/"
