"""The errors that calling AIRisk can raise, one for each thing that the caller can do about them.

    AIRiskError
    ├── AIRiskUnavailable       AIRisk is unreachable, overloaded or broken: keep the token and try again later
    ├── AIRiskRefused           AIRisk said no: the same request will not succeed later either
    ├── AIRiskInvalidResponse   AIRisk's answer does not match its documentation
    └── ConnectionRequired      a user has to connect, or to connect again

A wrong setting raises Django's ``ImproperlyConfigured``, which is not part of this tree: it should not be caught
together with these. No message or attribute here ever holds a token, a code, a state or a client secret.
"""


class AIRiskError(Exception):
    """The base class of all errors that calling AIRisk can raise."""

    @property
    def log_fields(self) -> dict[str, int | str]:
        """What a log record contains about this error besides the name of its class."""
        return {}


class AIRiskUnavailable(AIRiskError):
    """AIRisk could not be reached, an answer broke off, or an OAuth endpoint or a chat call answered 5xx or 429.

    :ivar retry_after: how many seconds AIRisk asked to wait (``Retry-After``), or ``None``.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AIRiskRefused(AIRiskError):
    """AIRisk refused the request (RFC 6749, sections 4.1.2.1 and 5.2; AIRisk's error responses).

    :ivar status: the HTTP status, or 302 if AIRisk refused by a redirect with error parameters.
    :ivar reason: AIRisk's words, such as ``Invalid Code``; empty if it gave none, or none that is safe to show.
    :ivar trace_id: the ``traceId`` that AIRisk's support asks for, or an empty string.
    """

    def __init__(self, status: int, reason: str = "", trace_id: str = "") -> None:
        super().__init__(status, reason, trace_id)
        self.status = status
        self.reason = reason
        self.trace_id = trace_id

    @property
    def log_fields(self) -> dict[str, int | str]:
        # With a prefix, because a site's own tracing may put a trace_id on every record.
        return {"airisk_status": self.status, "airisk_reason": self.reason, "airisk_trace_id": self.trace_id}

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        trace = f" (traceId {self.trace_id})" if self.trace_id else ""
        return f"AIRisk refused the request{self._how}{reason}{trace}"

    @property
    def _how(self) -> str:
        if self.status >= 400:
            return f" with status {self.status}"
        if self.status >= 300:
            return " by redirect"
        return f" in an answer with status {self.status}" if self.status else ""


class AIRiskInvalidResponse(AIRiskError):
    """AIRisk's answer cannot be understood, or must not be trusted."""


class ConnectionRequired(AIRiskError):
    """A user has to connect to AIRisk before this call can be made.

    :ivar deployment: alias of the deployment.
    :ivar connect_url: path of the page to connect on; ``None`` if no user can help, as with the application's own
        token, or if the site does not include the package's URLs.
    """

    def __init__(self, message: str, *, deployment: str = "default", connect_url: str | None = None) -> None:
        super().__init__(message)
        self.deployment = deployment
        self.connect_url = connect_url
