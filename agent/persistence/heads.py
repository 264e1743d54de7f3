"""Who continued a conversation last, and whether a fork was meant.

Two writers who both load the newest checkpoint and both continue it would leave two branches, of which one is
never seen again. A fork on purpose looks the same to a saver: a checkpoint whose parent has a child already.
The difference is how the parent was read. A run that *follows* the conversation asks for the newest
checkpoint; one that forks names an old one. So the saver remembers what it handed out as the newest, and
forgets it when that checkpoint is asked for by name.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

_REMEMBERED = 20_000


class Heads:
    """The checkpoints that this saver handed out, or stored, as the newest of their thread."""

    def __init__(self) -> None:
        self._followed: OrderedDict[tuple[str, str, str | None], None] = OrderedDict()
        self._lock = threading.Lock()

    def follow(self, thread_id: str, ns: str, checkpoint_id: str | None) -> None:
        """It was handed out as the newest; ``None`` says that there was nothing yet."""
        with self._lock:
            self._followed[thread_id, ns, checkpoint_id] = None
            self._followed.move_to_end((thread_id, ns, checkpoint_id))
            if len(self._followed) > _REMEMBERED:
                self._followed.popitem(last=False)

    def name(self, thread_id: str, ns: str, checkpoint_id: str) -> None:
        """It was asked for by name, so continuing it is on purpose."""
        with self._lock:
            self._followed.pop((thread_id, ns, checkpoint_id), None)

    def followed(self, thread_id: str, ns: str, checkpoint_id: str | None) -> bool:
        """Whether a writer who continues it takes it for the newest."""
        with self._lock:
            return (thread_id, ns, checkpoint_id) in self._followed
