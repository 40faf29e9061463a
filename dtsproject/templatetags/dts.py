"""The filters of dtsproject.show, for templates."""

from django import template

from dtsproject import show

register = template.Library()
for name in ("age", "ago", "badge", "bar", "duration", "size", "stamp", "words"):
    register.filter(name, getattr(show, name))
