from django.urls import include, path

from airisk_oauth.decorators import airisk_required

from . import views
from .api import api

urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("api/", api.urls),
    path("conversations/", views.conversations),
    path("conversations/<int:number>/", views.conversation),
    path("agents/", views.agents),
    path("answer/", views.answer),
    path("export/", views.export),
    path("overview/", airisk_required(views.overview)),
    path("profile/", views.profile),
    path("agents-by-class/", views.Agents.as_view()),
    path("agents-by-async-class/", views.AsyncAgents.as_view()),
    path("dashboard/", views.Dashboard.as_view()),
]
