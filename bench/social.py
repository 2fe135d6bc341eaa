"""AIRisk as social-auth-app-django would connect to it."""

from typing import Any

from django.conf import settings
from social_core.backends.oauth import BaseOAuth2


class AIRiskOAuth2(BaseOAuth2):
    name = "airisk"
    ID_KEY = "id"
    ACCESS_TOKEN_METHOD = "POST"
    AUTHORIZATION_URL = f"{settings.AIRISK_URL}/api/oauth2"
    ACCESS_TOKEN_URL = f"{settings.AIRISK_URL}/api/oauth2/Token"

    def user_data(self, access_token: str, *_args: Any, **_kwargs: Any) -> dict[str, str]:
        return {"id": access_token[-32:]}

    def get_user_details(self, response: Any) -> dict[str, str]:
        return {"username": response["id"]}
