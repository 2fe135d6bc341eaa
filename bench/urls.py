"""The admin, our own pages, which the list of tokens links to, and those of social-auth-app-django."""

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("airisk/", include("airisk_oauth.urls")),
]
if apps.is_installed("social_django"):
    urlpatterns.append(path("social/", include("social_django.urls", namespace="social")))
