"""DTS's settings without what it does for a request: no middleware, no authentication."""

from dtsproject.settings import *  # noqa: F403 - settings are taken over whole

ROOT_URLCONF = "benchmarks.bare.urls"
MIDDLEWARE = []
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}
