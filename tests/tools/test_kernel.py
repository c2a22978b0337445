"""A cell's reply is found even if sending a widget's state has used up the socket's signal."""

import asyncio
import time

import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

from tools.kernel import PollingChannel


async def reply_while_sending(channel_class) -> dict:
    """Wait on a channel; a reply arrives while the waiting side is busy, which then sends before it looks."""
    context = zmq.asyncio.Context()
    session = Session(key=b"key")
    kernel = zmq.Context.shadow(context).socket(zmq.ROUTER)
    port = kernel.bind_to_random_port("tcp://127.0.0.1")
    channel = channel_class(context.socket(zmq.DEALER), session)
    channel.socket.connect(f"tcp://127.0.0.1:{port}")
    try:
        channel.send(session.msg("execute_request"))
        identity = kernel.recv_multipart()[0]
        waiting = asyncio.ensure_future(channel.get_msg(timeout=30))
        await asyncio.sleep(0.1)
        session.send(kernel, "execute_reply", ident=identity)
        time.sleep(0.2)  # the loop is busy: it cannot see that the reply has come
        channel.send(session.msg("comm_msg"))
        return await asyncio.wait_for(waiting, 2)
    finally:
        channel.close()
        kernel.close(linger=0)
        context.term()


def test_the_reply_is_found():
    assert asyncio.run(reply_while_sending(PollingChannel))["msg_type"] == "execute_reply"


def test_the_plain_channel_misses_it():
    """Why PollingChannel is there. If this fails, jupyter_client has mended it: remove tools/kernel.py."""
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(reply_while_sending(AsyncZMQSocketChannel))
