"""Who a worker is on its machine, and the proof that its former boot is dead.

In the state folder stand an id of the folder itself (two containers may share a host name or
/etc/machine-id, but not the lock below), and per worker name a lock file, held by its guard, and
the id of its latest boot.
"""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from django.conf import settings

from workers.processes import kill_survivors, lock_is_free


@dataclass(frozen=True)
class Identity:
    name: str
    boot_id: UUID
    machine_id: str
    lock_path: Path
    former_boot_dead: bool
    former_boot_id: UUID | None


def default_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def take(name: str) -> Identity:
    """The identity of a new boot of the worker `name`, before its guard takes the lock.

    Where a former boot's lock is free, what its tasks left is killed first: then it is dead.
    """
    folder = settings.STATE_DIR / "workers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_path, boot_path = folder / f"{name}.lock", folder / f"{name}.boot"
    former, boot_id = _read(boot_path), uuid.uuid4()
    dead = bool(former) and lock_is_free(lock_path)
    if dead:
        kill_survivors(former, lock_path)
    former_id = UUID(former) if former else None
    return Identity(name, boot_id, _machine_id(folder), lock_path, dead, former_id)


def keep(identity: Identity) -> None:
    """Notes the boot, once its guard holds the lock."""
    _write(identity.lock_path.with_suffix(".boot"), str(identity.boot_id))


def _machine_id(folder: Path) -> str:
    path = folder / "machine_id"
    if not path.exists():
        _write(path, uuid.uuid4().hex)
    return _read(path)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _write(path: Path, text: str) -> None:
    """Whole or not at all, however the process ends."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
