import django_filters

from jobs.api.filters import ChoicesFilter, TextFilter
from workers.models import State


class WorkerFilter(django_filters.FilterSet):
    state = ChoicesFilter(choices=State.choices)
    name = TextFilter()
