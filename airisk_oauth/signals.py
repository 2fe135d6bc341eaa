"""Signals for metrics and audit trails.

Each is sent with ``sender=AIRiskToken``, ``user_id`` (``None`` for the application's token) and ``deployment``
(the alias); ``renewal_failed`` also with ``error`` (an ``AIRiskError``). None carries a token. An exception in a
receiver is logged, and does not undo the event that the signal is about.
"""

from django.dispatch import Signal

token_obtained = Signal()
token_renewed = Signal()
renewal_failed = Signal()
token_disconnected = Signal()
