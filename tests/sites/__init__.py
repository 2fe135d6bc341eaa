"""Sites as others have them, each in a process of its own: ``python -m tests.sites.startproject``, and so on.

Those on PostgreSQL need one: ``python -m tests.with_postgresql python -m tests.sites.production``.
"""
