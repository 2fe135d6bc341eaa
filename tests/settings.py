"""The site that the tests run in: like a real one, with the sandbox in AIRisk's place.

``DATABASE_URL`` chooses the database; ``AIRISK_BASE_URL`` is for processes that a test starts.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

import environ

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent

SECRET_KEY = "a key for the tests, and long enough for Django's own check of it"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "/static/"
LOGIN_URL = "/accounts/login/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "airisk_oauth",
    "airisk_oauth.sandbox",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
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
            ]
        },
    }
]

if "DATABASE_URL" in env.ENVIRON:
    DATABASES = {"default": env.db("DATABASE_URL")}
else:
    # A folder of its own for each run.
    _scratch = tempfile.mkdtemp(prefix="airisk-oauth-")
    atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    DATABASES = {"default": env.db_url_config(f"sqlite:///{_scratch}/site.sqlite3")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, because threads cannot share a database in memory.
    DATABASES["default"]["TEST"] = {"NAME": str(Path(DATABASES["default"]["NAME"]).with_name("test.sqlite3"))}
    # Without waiting for the disk, which makes no difference to locks.
    DATABASES["default"]["OPTIONS"] = {"init_command": "PRAGMA synchronous=OFF"}
    if env.bool("SQLITE_IMMEDIATE", default=False):
        DATABASES["default"]["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL",
        }

# Since Django 6.1 this has to be set, even for the default.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend"}}

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

AIRISK_OAUTH = {
    "default": {
        "BASE_URL": env("AIRISK_BASE_URL", default="https://demo.aicrisk.com"),
        "CLIENT_ID": "client-1",
        "CLIENT_SECRET": "secret-1",
        "REDIRECT_URI": "https://app.example.com/airisk/callback/",
    },
    "second": {
        "BASE_URL": "https://second.aicrisk.com/tenant",
        "CLIENT_ID": "client-2",
        "CLIENT_SECRET": "secret-2",
        "REDIRECT_URI": "https://app.example.com/airisk/callback/second/",
    },
}
AIRISK_OAUTH_SANDBOX = True
