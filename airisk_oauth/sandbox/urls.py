"""AIRisk's own paths, below any prefix that the site includes them at, and the control page."""

from django.urls import path

from . import api, control, oauth

app_name = "airisk_sandbox"

urlpatterns = [
    path("api/oauth2", oauth.authorize, name="authorize"),
    path("api/oauth2/Consent", oauth.consent, name="consent"),
    path("api/oauth2/Error", oauth.error, name="error"),
    path("api/oauth2/Token", oauth.token, name="token"),
    path("api/GetConversations", api.get_conversations, name="get_conversations"),
    path("api/Chat/ListAgents", api.list_agents, name="list_agents"),
    path("api/Chat/GetConversations", api.list_conversations, name="list_conversations"),
    path("api/Chat/GetConversation/<rest>", api.get_conversation, name="get_conversation"),
    path("api/Chat/CreateConversation", api.create_conversation, name="create_conversation"),
    path("api/Chat/AskAgent", api.ask_agent, name="ask_agent"),
    path("api/Chat/AddFileToConversation/<rest>", api.add_file, name="add_file"),
    path("api/Chat/SubmitFeedback", api.submit_feedback, name="submit_feedback"),
    path("control/", control.control, name="control"),
    path("control/journal.json", control.journal, name="journal"),
]
