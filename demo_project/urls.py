from django.apps import apps
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from . import chat, trials, views

urlpatterns = [
    path("", views.home, name="home"),
    path("conversations/", views.conversations, name="conversations"),
    path("chat/", chat.chat, name="chat"),
    path("chat/<str:conversation_id>/", chat.conversation, name="conversation"),
    path("chat/<str:conversation_id>/rate/", chat.rate, name="rate"),
    path("accounts/login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("airisk/", include("airisk_oauth.urls")),
    path("admin/", admin.site.urls),
]
if apps.is_installed("airisk_oauth.sandbox"):
    urlpatterns += [
        path("sandbox/", include("airisk_oauth.sandbox.urls")),
        path("trials/fix/", trials.fix, name="fix"),
        path("trials/<slug:name>/", trials.begin, name="trial"),
    ]
