"""The words of workers.presence, for templates."""

from django import template

from workers import presence

register = template.Library()
for name in ("cells", "condition"):
    register.filter(name, getattr(presence, name))
