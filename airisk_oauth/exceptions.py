"""What can go wrong, named by what the caller should do about it.

    AIRiskError
    ├── AIRiskUnavailable       not reached, overloaded or broken: keep the token, try later
    ├── AIRiskRefused           AIRisk said no: trying again as it is will not help
    ├── AIRiskInvalidResponse   AIRisk answered something that is not in its documentation
    └── ConnectionRequired      a person has to connect (again)

A wrong setting is Django's ``ImproperlyConfigured``, outside this tree: no code should catch it with these.
No message or attribute here ever holds a token, a code, a state or a client secret.
"""


class AIRiskError(Exception):
    """Base of all errors that calling AIRisk can raise."""

    @property
    def log_fields(self) -> dict[str, int | str]:
        """What a log record holds of this error besides the name of its class."""
        return {}


class AIRiskUnavailable(AIRiskError):
    """AIRisk could not be reached, or an OAuth endpoint answered 5xx or 429.

    :ivar retry_after: seconds AIRisk asked to wait (``Retry-After``), or ``None``.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AIRiskRefused(AIRiskError):
    """AIRisk refused the request (RFC 6749, sections 4.1.2.1 and 5.2; AIRisk's error responses).

    :ivar status: the HTTP status, or 302 where the refusal came as a redirect with error parameters.
    :ivar reason: AIRisk's words, such as ``Invalid Code``; empty where it gave none that is safe to show.
    :ivar trace_id: the ``traceId`` that AIRisk's support asks for, or an empty string.
    """

    def __init__(self, status: int, reason: str = "", trace_id: str = "") -> None:
        super().__init__(status, reason, trace_id)
        self.status = status
        self.reason = reason
        self.trace_id = trace_id

    @property
    def log_fields(self) -> dict[str, int | str]:
        # Prefixed, because a site's own tracing may well put a trace_id on every record.
        return {"airisk_status": self.status, "airisk_reason": self.reason, "airisk_trace_id": self.trace_id}

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        trace = f" (traceId {self.trace_id})" if self.trace_id else ""
        return f"AIRisk refused with status {self.status}{reason}{trace}"


class AIRiskInvalidResponse(AIRiskError):
    """AIRisk answered something that cannot be understood, or must not be trusted."""


class ConnectionRequired(AIRiskError):
    """A person has to connect to AIRisk before this call can be made.

    :ivar deployment: alias of the deployment.
    :ivar connect_url: path of the page to connect on; ``None`` where no end user can help, as for the
        application's own token, or where the site does not include the package's URLs.
    """

    def __init__(self, message: str, *, deployment: str = "default", connect_url: str | None = None) -> None:
        super().__init__(message)
        self.deployment = deployment
        self.connect_url = connect_url
