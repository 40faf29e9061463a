"""The words of scheduling.explain, for templates."""

from django import template

from scheduling import explain

register = template.Library()
for name in ("needs", "remedy", "why"):
    register.filter(name, getattr(explain, name))
