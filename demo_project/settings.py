"""The demo: a small site that uses ``airisk_oauth``, configured by environment variables or a ``.env`` file.

An empty variable counts as not set. ``.env.example`` lists them all.
"""

from pathlib import Path
from urllib.parse import quote

import django
import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
env.read_env(BASE_DIR / ".env")

DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])

SECRET_KEY = env.str("SECRET_KEY", default="")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured("Set SECRET_KEY. Only with DEBUG=true does it have a default, for development.")
    # FOR DEVELOPMENT ONLY: this key is public, and it signs the sessions and encrypts the tokens.
    SECRET_KEY = "django-insecure-demo-key-for-development-only-and-known-to-everybody"  # noqa: S105

INSTALLED_APPS = [
    # Above airisk_oauth, so that this site's base template comes first: the package's pages then look like this site.
    "demo_project",
    "airisk_oauth",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "demo_project.middleware.one_address",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "airisk_oauth.middleware.AIRiskMiddleware",
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
                "demo_project.context_processors.sandbox",
            ]
        },
    }
]
ROOT_URLCONF = "demo_project.urls"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
#: The languages of the package's pages and this site's own; the browser chooses one.
LANGUAGES = [
    ("en", "English"),
    ("de", "Deutsch"),
    ("es", "Español"),
    ("fr", "Français"),
    ("ja", "日本語"),
    ("zh-hans", "简体中文"),
]

# A lost connection is told by e-mail, too. In development it appears where the server runs.
AIRISK_OAUTH_NOTIFY = {"users": DEBUG}
if DEBUG:
    _console = "django.core.mail.backends.console.EmailBackend"
    if django.VERSION >= (6, 1):
        MAILERS = {"default": {"BACKEND": _console}}
    else:
        EMAIL_BACKEND = _console

_database_url = env.str("DATABASE_URL", default="") or f"sqlite:///{quote(str(BASE_DIR / 'demo.sqlite3'))}"
DATABASES = {"default": env.db_url_config(_database_url)}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Several threads write. With these options readers never block, and a writer waits until it can begin.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }

AIRISK_BASE_URL = env.str("AIRISK_BASE_URL", default="")
if AIRISK_BASE_URL:
    AIRISK_OAUTH = {
        "default": {
            "BASE_URL": AIRISK_BASE_URL,
            "CLIENT_ID": env.str("AIRISK_CLIENT_ID"),
            "CLIENT_SECRET": env.str("AIRISK_CLIENT_SECRET"),
            "REDIRECT_URI": env.str("AIRISK_REDIRECT_URI"),
        }
    }
else:
    INSTALLED_APPS.append("airisk_oauth.sandbox")
    # The sandbox in this site stands in for AIRisk, so the settings have to contain the address of ``runserver``.
    _site = f"http://127.0.0.1:{env.int('PORT', default=8000)}"
    AIRISK_OAUTH = {
        "default": {
            "BASE_URL": f"{_site}/sandbox",
            "CLIENT_ID": "demo-site",
            "CLIENT_SECRET": "known-to-the-sandbox-only",
            "REDIRECT_URI": f"{_site}/airisk/callback/",
        }
    }
