"""Ports kept for processes that take them later."""

import socket

import pytest

from harness.core.processes import LOOPBACK, reserved_port


def taken(port: int, *options: int) -> socket.socket:
    listener = socket.socket()
    try:
        for option in options:
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((LOOPBACK, port))
    except OSError:
        listener.close()
        raise
    listener.listen()
    return listener


def test_a_server_gets_the_port_that_was_kept_for_it_and_all_requests() -> None:
    with reserved_port() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port))
        with taken(port, socket.SO_REUSEADDR) as listener:
            for _ in range(50):
                socket.create_connection((LOOPBACK, port)).close()
                listener.accept()[0].close()


def test_who_asks_for_any_port_gets_another() -> None:
    with reserved_port() as port, pytest.raises(OSError, match="in use"):
        taken(port)
