"""Loading a video pipeline by name, folder or hub id.

Example:
    >>> from ieadapt.models import known_models
    >>> "scenes" in known_models()
    True
"""

from typing import TYPE_CHECKING

from ieadapt.lazy import on_first_use

if TYPE_CHECKING:
    from ieadapt.models.loading import check_memory, load, loaded_size
    from ieadapt.models.location import PRECISIONS, BundledModel, known_models, model_folder

__all__ = ["PRECISIONS", "BundledModel", "check_memory", "known_models", "load", "loaded_size", "model_folder"]

__getattr__ = on_first_use(__name__)
