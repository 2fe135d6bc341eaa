"""A user with a UUID, an e-mail address and a password: ``AbstractBaseUser`` without staff, permissions or groups."""

import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Members(BaseUserManager["Member"]):
    pass


class Member(AbstractBaseUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)

    objects = Members()

    USERNAME_FIELD = "email"
