"""A FastCGI program that answers each request with its parameters, exactly as they came, as JSON.

Its listening socket is descriptor 0, as a web server or the test hands it over.
"""

from __future__ import annotations

import json
import socket
import threading

from workers.fastcgi.connection import EndOfBody, PeerClosed, RequestParams, ServerConnection


def answer(sock: socket.socket) -> None:
    """All requests of one connection."""
    connection = ServerConnection()
    params: dict[str, str] = {}
    with sock:
        while True:
            event = connection.next_event()
            if isinstance(event, RequestParams):
                params = event.params
            elif isinstance(event, EndOfBody):
                head = b"Status: 200 OK\r\nContent-Type: application/json\r\n\r\n"
                parts = connection.stdout(head + json.dumps(params).encode())
                sock.sendall(b"".join(parts + connection.end_request()))
                if not connection.keep_connection:
                    return
            elif isinstance(event, PeerClosed):
                return
            else:
                connection.receive_data(sock.recv(65536))
                sock.sendall(connection.data_to_send())


def serve(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=answer, args=[sock], daemon=True).start()


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
