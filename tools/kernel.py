"""A kernel connection for papermill that does not miss replies."""

import time
from queue import Empty

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager
from traitlets import Type

SLICE = 0.5  # seconds


class PollingChannel(AsyncZMQSocketChannel):
    """A channel that looks again every half second whether a message has come.

    nbclient sends what `ipywidgets.Output` captures over the channel on which it waits for a cell's reply. A socket
    tells of a new message once; if the sending has used that up, the waiting would never end (nbclient issue 312).
    """

    async def get_msg(self, timeout: float | None = None) -> dict:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = SLICE if end is None else min(SLICE, max(end - time.monotonic(), 0))
            try:
                return await super().get_msg(wait)
            except Empty:
                if end is not None and time.monotonic() >= end:
                    raise


class Client(AsyncKernelClient):
    shell_channel_class = Type(PollingChannel)


class Manager(AsyncKernelManager):
    client_class = "tools.kernel.Client"
