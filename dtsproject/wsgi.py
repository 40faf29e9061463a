import os

from django.core.wsgi import get_wsgi_application

from dtsproject.postgresql.base import serve_as

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dtsproject.settings")
application = get_wsgi_application()
serve_as("api")
