"""What the e-mails about lost connections are made from."""

from typing import Any, NamedTuple

from ..exceptions import AIRiskError


class Loss(NamedTuple):
    """A connection that was lost.

    :ivar user_id: ``None`` for the application's.
    :ivar deployment: alias.
    :ivar connect_url: path of the page to connect on, or ``None`` where no end user can help.
    """

    user_id: Any
    deployment: str
    error: AIRiskError
    connect_url: str | None
