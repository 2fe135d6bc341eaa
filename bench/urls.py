"""The admin, and our own pages: the list of tokens links to them."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("airisk/", include("airisk_oauth.urls")),
]
