from drf_spectacular.views import SpectacularSwaggerSplitView


class Docs(SpectacularSwaggerSplitView):
    """The API's page: served whole from here, it asks no other host for anything."""

    schema = None
