"""What holds for every test."""

import pytest
from django.db import connection


@pytest.fixture(autouse=True)
def no_output_of_earlier_tests(request):
    """Django's flush knows the tables of models, and output (`log_chunks`) has none."""
    if request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM log_chunks")
