"""htmx and Turbo, from the packages for Django that include them."""

from importlib.metadata import files
from pathlib import Path

from django.http import HttpRequest, HttpResponse
from django.urls import path

PACKAGES = {"htmx-2.min.js": "django-htmx", "htmx-4.min.js": "django-htmx", "turbo.min.js": "turbo-django"}


def asset(request: HttpRequest, name: str) -> HttpResponse:
    [file] = [file for file in files(PACKAGES[name]) or () if file.name == name]
    return HttpResponse(Path(file.locate()).read_bytes(), content_type="text/javascript")


urlpatterns = [path("assets/<str:name>", asset, name="asset")]
