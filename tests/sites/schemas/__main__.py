"""Tenants by schema (django-tenants): each host has a schema of its own; this app is in the shared and tenant apps.

The same primary keys belong to different people in the two schemas.
"""

from django.core.management import call_command
from django.urls import include, path

from tests.sites import running
from tests.support import airisk

AIRISK = airisk.start()
DATABASE = running.postgresql("schemas", ATOMIC_REQUESTS=True, TEST={})
running.configure(
    AIRISK.url,
    DATABASES={"default": {**DATABASE, "ENGINE": "django_tenants.postgresql_backend"}},
    DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
    SHARED_APPS=["django_tenants", "tests.sites.schemas", *running.APPS],
    TENANT_APPS=running.APPS,
    INSTALLED_APPS=["django_tenants", "tests.sites.schemas", *running.APPS],
    TENANT_MODEL="schemas.Company",
    TENANT_DOMAIN_MODEL="schemas.Host",
    MIDDLEWARE=["django_tenants.middleware.main.TenantMainMiddleware", *running.MIDDLEWARE],
)

from django_tenants.utils import schema_context  # noqa: E402 - after the set-up

from tests.sites import mission as people  # noqa: E402
from tests.sites.schemas.models import Company, Host  # noqa: E402

urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("conversations/", running.conversations),
]
call_command("migrate_schemas", shared=True, run_syncdb=True, verbosity=0)
for schema, host in (("public", "public.example.com"), ("acme", running.HOST)):
    company = Company(schema_name=schema, name=schema)
    company.save(verbosity=0)
    Host.objects.create(tenant=company, domain=host)
ROOT = people.new_connected_person(AIRISK, "root", "root_of_public", host="public.example.com")
with schema_context("acme"):
    MIA = people.new_person("mia", "mia_of_acme")
    MIA.tenant = lambda: schema_context("acme")


def mission() -> None:
    people.mission(AIRISK, MIA)


def nobody_gets_the_token_of_another_tenant() -> None:
    people.keeps_to_own_tenant(AIRISK, MIA, namesake=ROOT)


running.keep(mission, nobody_gets_the_token_of_another_tenant)
