SECRET_KEY = "a key for the type checkers, which run no view of this site"
ROOT_URLCONF = "mysite.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "airisk_oauth",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "airisk_oauth.middleware.AIRiskMiddleware",
]
AIRISK_OAUTH = {
    "default": {
        "BASE_URL": "https://demo.aicrisk.com",
        "CLIENT_ID": "client-1",
        "CLIENT_SECRET": "secret-1",
        "REDIRECT_URI": "https://app.example.com/airisk/callback/",
    },
}
