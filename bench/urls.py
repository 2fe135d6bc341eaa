"""The admin, and our own pages, which the list of tokens links to."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("airisk/", include("airisk_oauth.urls")),
]
