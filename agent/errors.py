"""The one tree of errors that callers of ``agent`` catch.

Errors of vLLM, SQLAlchemy or an HTTP client never cross our border: they are translated where they are
met, and kept as ``__cause__``. Every message says what happened, with which value, and what to do.

::

    AgentError
    ├── ConfigurationError (also ValueError)   an argument or a setting is wrong
    │   └── MissingExtraError                  an optional dependency is not installed
    ├── ModelError                             the model itself
    │   ├── ModelNotFoundError                 no such directory, hub id or server
    │   ├── EmbeddedModelError                 the embedded model cannot be fetched or converted
    │   ├── FitError                           the memory that a model needs cannot be foretold
    │   ├── UnsupportedInputError              this model does not take such input
    │   ├── UnsupportedTaskError               this model is for another task
    │   └── StructuredOutputError              its answer is cut off, or does not fit the schema asked for
    ├── EngineError                            the engine that runs the model
    │   ├── EngineStartError                   it did not start
    │   │   └── DoesNotFitError                it cannot: the model needs more memory than there is
    │   ├── EngineClosedError                  it was used after close()
    │   ├── EngineDeadError                    it died while it was working
    │   └── RequestError                       it refused one request (too long, bad schema, …)
    └── PersistenceError                       conversations on disk
        ├── DatabaseError                      the database cannot be opened, read or written
        ├── ConflictError                      two writers on one thread
        └── ThreadNotFoundError                no such conversation

Tools have a tree of their own (:mod:`tools.errors`), because ``tools`` does not import ``agent``.
"""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(AgentError, ValueError):
    """An argument or a setting is wrong; the message names it and its value."""


class MissingExtraError(ConfigurationError):
    """An optional dependency is needed and not installed; the message names the extra."""


class ModelError(AgentError):
    """The model itself is the problem."""


class ModelNotFoundError(ModelError):
    """No model at that directory, hub id or address."""


class EmbeddedModelError(ModelError):
    """The embedded model cannot be fetched, verified or converted."""


class FitError(ModelError):
    """The memory that a model needs cannot be foretold; the message says what is missing."""


class UnsupportedInputError(ModelError):
    """This model does not take such input, for example an image."""


class UnsupportedTaskError(ModelError):
    """This model is for another task: it makes no embeddings, or scores, or classes."""


class StructuredOutputError(ModelError, ValueError):
    """A structured answer is cut off or does not fit its schema, or the model called a tool instead."""


class EngineError(AgentError):
    """The engine that runs the model failed."""


class EngineStartError(EngineError):
    """The engine did not start."""


class DoesNotFitError(EngineStartError):
    """The model needs more memory than there is; the message says what would fit."""


class EngineClosedError(EngineError):
    """The engine was used after ``close()``."""


class EngineDeadError(EngineError):
    """The engine died while requests were running; a new call starts a fresh one."""


class RequestError(EngineError, ValueError):
    """The engine refused one request; others are not affected."""


class PersistenceError(AgentError):
    """Stored conversations are the problem."""


class DatabaseError(PersistenceError):
    """The database cannot be opened, read or written."""


class ConflictError(PersistenceError):
    """Two writers worked on one thread at once; this one lost."""


class ThreadNotFoundError(PersistenceError, LookupError):
    """No conversation has that id."""
