"""The admin: identities can be edited; of tokens it shows the status and what is wrong, and never the token.

Every process of a site imports this when it starts, so what only an action needs is imported by the action.
"""

from .identities import AIRiskIdentityAdmin
from .tokens import AIRiskTokenAdmin

__all__ = ["AIRiskIdentityAdmin", "AIRiskTokenAdmin"]
