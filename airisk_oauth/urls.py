from django.urls import path

from . import views

app_name = "airisk_oauth"

urlpatterns = [
    path("", views.connection, name="connection"),
    path("connect/", views.connect, name="connect"),
    path("connect/<slug:alias>/", views.connect, name="connect"),
    path("callback/", views.callback, name="callback"),
    path("callback/<slug:alias>/", views.callback, name="callback"),
    path("disconnect/", views.disconnect, name="disconnect"),
    path("disconnect/<slug:alias>/", views.disconnect, name="disconnect"),
]
