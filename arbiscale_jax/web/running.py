"""Runs the server until it is told to stop."""

import os
import signal
import socket
import sys
from collections.abc import Collection
from contextlib import closing
from types import FrameType
from typing import NamedTuple

import uvicorn

from arbiscale_jax.errors import UserError
from arbiscale_jax.web.app import make_app
from arbiscale_jax.web.site import Site

STOP_SECONDS = 3  # that requests have to end when the server stops


class Address(NamedTuple):
    """Says where the server is reached, and what it asks for."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    token: str = ""
    hosts: Collection[str] = ()  # names besides localhost and IP addresses


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket that listens.

    Raises:
      UserError: if the address is none of this machine's, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except OSError as e:
        raise UserError(f"--host={host} is no address ({e.strerror}); give one of this machine's.") from e
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(where)
        found.listen(128)
    except OSError as e:
        found.close()
        raise UserError(f"The server cannot listen at {host}:{port} ({e.strerror}); give another --port.") from e
    return found


def make_server(site: Site, address: Address) -> uvicorn.Server:
    """Makes a server of a site, to be run with a socket of `listen`."""
    app = make_app(site, address.token, address.hosts)
    config = uvicorn.Config(
        app,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_level="warning",
        access_log=False,  # it would name pictures
        server_header=False,
    )
    server = uvicorn.Server(config)
    site.closing = lambda: server.should_exit
    return server


def run(site: Site, address: Address) -> None:
    """Serves until Ctrl-C or SIGTERM, and closes the site.

    Raises:
      UserError: if the address or port cannot be used.
    """
    server, signals = make_server(site, address), (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True  # raising would be lost where an event loop written in C is at work

    before = [signal.signal(one, stop) for one in signals]  # until uvicorn has handlers, and for what it passes on
    try:
        with closing(listen(address.host, address.port)) as found:
            port = found.getsockname()[1]
            shown = "127.0.0.1" if address.host in ("0.0.0.0", "::") else address.host
            shown = f"[{shown}]" if ":" in shown else shown
            asks = "; the page asks for the token" if address.token else ""
            print(f"The page is at http://{shown}:{port}/{asks}. Ctrl-C stops the server.", flush=True)
            server.run(sockets=[found])
    finally:
        stopped = site.close()
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
        if not stopped:  # a program that runs on the device cannot be ended in another way
            sys.stdout.flush()
            os._exit(0)
