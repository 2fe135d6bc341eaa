"""Signals for metrics and audit trails.

Each is sent with ``sender=AIRiskToken``, ``user_id`` (``None`` for the application's token) and ``deployment``
(the alias); ``renewal_failed`` and ``connection_lost`` also with ``error`` (an ``AIRiskError``). None carries a token.
An exception in a receiver is logged, and does not undo the event that the signal is about.

``connection_lost``: only a person can get the connection working again. It is sent once, however often renewing fails
after that, with ``connect_url``: the path of the page to connect on, or ``None`` where no end user can help.
``connection_restored``: a connection that was lost has a new token.
"""

from django.dispatch import Signal

#: A user connected, or the application got its first token.
token_obtained = Signal()
#: A token was renewed.
token_renewed = Signal()
#: A token could not be renewed.
renewal_failed = Signal()
#: A token was deleted because its user disconnected, or because staff did it for them.
token_disconnected = Signal()
#: Only a person can get the connection working again.
connection_lost = Signal()
#: A connection that was lost has a new token.
connection_restored = Signal()
