"""A team's own settings module that swaps the policy."""

from dtsproject.settings import *  # noqa: F403 - settings are taken over whole


class OldestFirst:
    def score(self, task):
        return task.available_at_us


DTS = {"POLICY": "tests.fifo_settings.OldestFirst"}
