import os

from django.core.asgi import get_asgi_application

from dtsproject.postgresql.base import serve_as

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dtsproject.settings")
application = get_asgi_application()
serve_as("api")
