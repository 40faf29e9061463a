"""The words of jobs.describe, for templates."""

from django import template

from jobs import describe

register = template.Library()
register.filter("heading", describe.title)
for name in ("far", "ran", "rules", "took"):
    register.filter(name, getattr(describe, name))
