"""Import torchvision also where its compiled part does not load.

Beside a CPU build of torch, torchvision's wheel cannot load its compiled operators, and the whole import then fails
because two of them, `nms` and `qnms`, are not declared. Declared, they let the import through: data sets, transforms,
utilities and models work; the operators themselves do not.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_declared: list[Any] = []  # torch.library.Library: an operator lives as long as the library object that declared it


def import_torchvision() -> ModuleType:
    """The torchvision package. Nothing is changed where it imports by itself.

    Raises ImportError, saying what to install, if torchvision is absent.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ImportError("torchvision is not installed; install the packages of requirements.txt.") from error
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left half done
    if not _declared:
        import torch

        library = torch.library.Library("torchvision", "DEF")
        _declared.append(library)
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")
