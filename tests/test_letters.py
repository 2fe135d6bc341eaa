"""The e-mails about lost connections as a mail program shows them: on narrow and wide screens, light and dark."""

from typing import Any, Literal

import pytest
from django.contrib.auth.models import User
from django.utils.translation import override, to_language
from playwright.sync_api import Browser

from airisk_oauth.exceptions import AIRiskRefused
from airisk_oauth.notices.letters import letter_to_managers, letter_to_user
from airisk_oauth.notices.loss import Loss
from tests import messages
from tests.support.chromium import assert_no_barrier, needs_chromium

pytestmark = [pytest.mark.django_db, pytest.mark.once, needs_chromium]

REFUSED = AIRiskRefused(401, "Unauthorized", "00-676e1bd0c3f04c0fbf2b8cc9a2c55ef1-35ac77b23e0a4b1d-00")


def letters(settings: Any, language: str) -> list[str]:
    """Return the HTML of one letter of each kind."""
    settings.LANGUAGE_CODE = language
    settings.MANAGERS = ["boss@example.com"]
    name = "carla.rodriguez-hernandez@a-rather-long-company-name.example"
    carla, _created = User.objects.get_or_create(username=name, email=name)
    losses = [Loss(None, "default", REFUSED, None), Loss(carla.pk, "second", REFUSED, "/airisk/connect/second/")]
    to_user = letter_to_user(losses[1], carla, language)
    assert to_user is not None
    to_managers = letter_to_managers(losses, {carla.pk: carla})
    return [letter.alternatives[0][0] for letter in (to_user, to_managers)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [600, 390])
def test_letters_have_no_barriers(
    chromium: Browser, settings: Any, width: int, scheme: Literal["light", "dark"]
) -> None:
    with chromium.new_context(viewport={"width": width, "height": 600}, color_scheme=scheme) as context:
        page = context.new_page()
        for language in ("en", *(to_language(name) for name in messages.languages())):
            with override(language):
                written = letters(settings, language)
            for html in written:
                page.set_content(html)
                assert_no_barrier(page)
