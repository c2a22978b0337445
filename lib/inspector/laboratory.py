"""Experiments on a memory: change one thing, run the episode again, see what the network answers.

`intervene` and `compare` are plain functions; `Laboratory` puts controls on them in a live notebook.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor

from lib.inspector.trace import Trace, check_slot, record
from lib.inspector.viewer import Inspector, widget_bundle
