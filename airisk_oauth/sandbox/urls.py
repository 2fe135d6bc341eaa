"""AIRisk's own paths, under whatever prefix the site includes them, and those of the control page."""

from django.urls import path

from . import api, control, oauth

app_name = "airisk_sandbox"

urlpatterns = [
    path("api/oauth2", oauth.authorize, name="authorize"),
    path("api/oauth2/Consent", oauth.consent, name="consent"),
    path("api/oauth2/Token", oauth.token, name="token"),
    path("api/GetConversations", api.get_conversations, name="get_conversations"),
    path("api/GetModels", api.get_models, name="get_models"),
    path("api/StreamAnswer", api.stream_answer, name="stream_answer"),
    path("api/SendMessage", api.send_message, name="send_message"),
    path("control/", control.control, name="control"),
    path("control/journal.json", control.journal, name="journal"),
]
