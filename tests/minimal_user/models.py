"""Two user models with almost nothing of ``auth.User``."""

import uuid
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models


class PersonManager(BaseUserManager["Person"]):
    pass


class Person(AbstractBaseUser):
    """``AbstractBaseUser`` alone: no staff, no permissions, no e-mail address, and a key that is not a number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    handle = models.CharField(max_length=50, unique=True)

    USERNAME_FIELD = "handle"
    objects = PersonManager()


class Bare(models.Model):
    """The minimum that Django's sign-in requires."""

    handle = models.CharField(max_length=50, unique=True)

    USERNAME_FIELD = "handle"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    is_anonymous = False
    is_authenticated = True

    def __str__(self) -> str:
        return "somebody"

    def get_session_auth_hash(self) -> str:
        return "hash"


def make(model: Any, handle: str, **values: Any) -> Any:
    return model._default_manager.create(handle=handle, **values)
