"""The secret key of a developer's machine, made once and kept in its state folder."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def local_key(state_dir: Path, *, allowed: bool) -> str:
    """The kept key of `state_dir`, made on first use with mode 0600.

    Raises ImproperlyConfigured unless `allowed`: only a local start may make its own key.
    """
    if not allowed:
        raise ImproperlyConfigured("Set SECRET_KEY to at least 50 random characters")
    path = state_dir / "secret_key"
    if not path.exists():
        # Passable: root's embedded PostgreSQL, below it, runs under another account.
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        # Written whole under another name, so that two first starts agree on one key.
        draft = state_dir / f"secret_key.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(50))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text()
