from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path

from tests import site_views
from tests.support import echo

urlpatterns = [
    path("", include(site_views)),
    path("", include(echo)),
    path("airisk/", include("airisk_oauth.urls")),
    path("sandbox/", include("airisk_oauth.sandbox.urls")),
    path("second-sandbox/", include("airisk_oauth.sandbox.urls", namespace="second_sandbox")),
    path("admin/", admin.site.urls),
    path("accounts/login/", LoginView.as_view()),
]
