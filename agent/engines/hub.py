"""Is there such a model on the hub? Asked before vLLM is imported, which takes ten seconds.

vLLM would find out by itself, after half a minute of repeated attempts, and say it in a page of text.
"""

from __future__ import annotations

import os

from agent.errors import ModelNotFoundError

_SECONDS = 10.0
_MARKS = ("config.json", "params.json")  # every model repository has one of them; the second is Mistral's


def check_hub_model(model: str, *, download_dir: str | None) -> None:
    """Refuse the id of a model that is neither here nor on the hub.

    Args:
        model: A directory, which is not looked at, or a hub id.
        download_dir: Where weights are stored; None for the hub's own cache.

    Raises:
        ModelNotFoundError: There is no such model, or the hub cannot be asked.
    """
    if os.path.isdir(model) or os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):
        return
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import RepositoryNotFoundError

    if any(isinstance(try_to_load_from_cache(model, mark, cache_dir=download_dir), str) for mark in _MARKS):
        return
    try:
        HfApi().model_info(model, timeout=_SECONDS)
    except RepositoryNotFoundError as error:
        msg = (
            f"no model {model!r}: there is no such directory here, and the hub knows no such id (or it is "
            "private: log in with `hf auth login`)"
        )
        raise ModelNotFoundError(msg) from error
    except Exception as error:  # the hub's client lets its HTTP library's errors through
        msg = (
            f"no model {model!r}: there is no such directory here, it was never downloaded, and the hub "
            f"cannot be asked ({error}); connect to the network once, or give the directory of a model"
        )
        raise ModelNotFoundError(msg) from error
