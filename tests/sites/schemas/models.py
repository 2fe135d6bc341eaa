"""The tenants and their hosts, as django-tenants requires them."""

from django.db import models
from django_tenants.models import DomainMixin, TenantMixin


class Company(TenantMixin):
    name = models.CharField(max_length=100)


class Host(DomainMixin):
    pass
