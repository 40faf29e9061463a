from typing import Any

from django.contrib import admin
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.request import Request
from rest_framework.routers import APIRootView, SimpleRouter

from dtsproject import health, problems
from dtsproject.docs import Docs
from jobs.api.base import check_parameters
from jobs.api.jobs import JobViewSet
from jobs.api.limits import LimitViewSet
from jobs.api.operations import OperationViewSet
from jobs.api.queues import QueueViewSet
from jobs.api.tasks import TaskViewSet
from scheduling.api.schedules import ScheduleViewSet
from scheduling.api.views import StatsViewSet, WhyViewSet
from workers.api.views import WorkerViewSet


class Root(APIRootView):
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        check_parameters(request, (), ())


router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("jobs", JobViewSet)
router.register("tasks", TaskViewSet)
router.register("queues", QueueViewSet)
router.register("operations", OperationViewSet)
router.register("limits", LimitViewSet)
router.register("workers", WorkerViewSet)
router.register("schedules", ScheduleViewSet)

root = {name: f"{basename}-list" for name, _, basename in router.registry} | {"stats": "stats"}
routes: list[Any] = [
    path("tasks/<int:pk>/why", WhyViewSet.as_view({"get": "retrieve"}), name="task-why"),
    path("stats", StatsViewSet.as_view({"get": "retrieve"}), name="stats"),
    *router.urls,
]
v1: list[Any] = [path("", Root.as_view(api_root_dict=root)), path("/", include(routes))]

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1", include((v1, "v1"))),
    path("api/schema", SpectacularJSONAPIView.as_view(), name="schema"),
    path("docs", Docs.as_view(url_name="schema"), name="docs"),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.Metrics.as_view()),
    re_path(r"^api(/|$)", problems.no_such_route),
]
handler400 = problems.bad_request
handler403 = problems.permission_denied
handler404 = problems.not_found
handler500 = problems.server_error
