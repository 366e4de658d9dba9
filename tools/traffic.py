#!/usr/bin/env python3
"""Makes exactly N loopback TCP connections, one send and one receive each, then says so: traffic with a known count."""

from __future__ import annotations

import socket
import sys


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(count):
            with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
                client.sendall(b"x")
                peer.recv(1)
    print(f"traffic: {count} connections made (tcp_v4_connect), {count} tcp_sendmsg, {count} tcp_recvmsg")


if __name__ == "__main__":
    main()
