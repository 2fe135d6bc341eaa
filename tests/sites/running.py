"""Running one of these sites: its settings, its database, and a line of output for each promise."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import django
import environ
import psycopg
from django.conf import settings
from django.http import HttpRequest, HttpResponse

HOST = "app.example.com"
APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "airisk_oauth",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
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
            ],
        },
    },
]


def deployments(url: str) -> dict[str, dict[str, str]]:
    """Return the setting ``AIRISK_OAUTH`` for an AIRisk at this URL."""
    options = {"BASE_URL": url, "CLIENT_ID": "client-1", "CLIENT_SECRET": "secret-1"}
    return {"default": {**options, "REDIRECT_URI": f"https://{HOST}/airisk/callback/"}}


def configure(airisk_url: str, **special: Any) -> None:
    """Set up Django with the settings that most sites have, and those that are special to this one."""
    ordinary = {
        "SECRET_KEY": "a key for the tests, and long enough for Django's own check of it",
        "ALLOWED_HOSTS": [".example.com"],
        "USE_TZ": True,
        "ROOT_URLCONF": "__main__",
        "LOGIN_URL": "/login/",
        "STATIC_URL": "/static/",
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "INSTALLED_APPS": APPS,
        "MIDDLEWARE": MIDDLEWARE,
        "TEMPLATES": TEMPLATES,
        "AIRISK_OAUTH": deployments(airisk_url),
    }
    settings.configure(**ordinary, **{name: value for name, value in special.items() if name not in ordinary})
    for name in ordinary.keys() & special.keys():
        setattr(settings, name, special[name])
    django.setup()


def postgresql(name: str, **options: Any) -> dict[str, Any]:
    """Return the settings of a new, empty database on the server that ``DATABASE_URL`` names."""
    server = environ.Env().db("DATABASE_URL")
    name = f"{name}_{os.getpid()}"
    with psycopg.connect(
        host=server["OPTIONS"]["host"], user=server["USER"], dbname="postgres", autocommit=True
    ) as link:
        link.execute(f"CREATE DATABASE {name}".encode())
    folder = server["OPTIONS"]["host"]
    return {"ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": server["USER"], "HOST": folder, **options}


def conversations(request: HttpRequest) -> HttpResponse:
    """Show the conversations of the user who is signed in."""
    return HttpResponse(request.airisk.get("/api/GetConversations"))  # type: ignore[attr-defined]


def keep(*promises: Callable[[], None]) -> None:
    """Check every promise, print a line for each, and exit: with status 0 if all are kept."""
    # A broken promise prints its own traceback.
    logging.disable()
    kept = True
    for promise in promises:
        try:
            promise()
        except Exception:  # noqa: BLE001 - its traceback is printed
            kept = False
            traceback.print_exc()
            print(f"{promise.__name__}: broken", flush=True)
        else:
            print(f"{promise.__name__}: kept", flush=True)
    sys.exit(0 if kept else 1)
