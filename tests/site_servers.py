"""The site under test for a real server, with middleware that likes to gather and to compress what is sent."""

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

django.setup()
settings.MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    *settings.MIDDLEWARE,
]
wsgi = WSGIHandler()
asgi = ASGIHandler()
