import django_filters

from jobs.api.filters import ChoicesFilter
from workers.models import State


class WorkerFilter(django_filters.FilterSet):
    state = ChoicesFilter(choices=State.choices)
    name = django_filters.CharFilter()
