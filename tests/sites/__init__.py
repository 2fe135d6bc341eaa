"""Sites as other people have them, each in its own process: ``python -m tests.sites.startproject``, and so on.

Those on PostgreSQL need a server: ``python -m tests.with_postgresql python -m tests.sites.production``.
"""
