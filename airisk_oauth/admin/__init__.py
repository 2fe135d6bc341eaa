"""The admin: identities can be edited; of tokens it shows the status and what is wrong, and never the token.

Every process of a site imports this when it starts, so what only an action needs is imported by the action.
"""

from django.contrib import admin

from .identities import AIRiskIdentityAdmin
from .tokens import AIRiskTokenAdmin
from .users import AIRiskIdentityFilter, AIRiskIdentityInline, extend_djangos_user_admin

__all__ = ["AIRiskIdentityAdmin", "AIRiskIdentityFilter", "AIRiskIdentityInline", "AIRiskTokenAdmin"]

extend_djangos_user_admin(admin.site)
