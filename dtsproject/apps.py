from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "dtsproject"

    def ready(self) -> None:
        from dtsproject import checks  # noqa: F401 - registers them
