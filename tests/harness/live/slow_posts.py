"""Begins logins over HTTP/2 with TLS and ends none of them: slow_posts.py PORT CONNECTIONS STREAMS

Each connection has a loopback address of its own. Prints a line when all are open, and then stays until
it is ended. Frames are written by hand (RFC 9113), since Python brings no HTTP/2.
"""
import socket, ssl, struct, sys, time

port, connections, streams = map(int, sys.argv[1:4])
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
tls.set_alpn_protocols(["h2"])
DATA, HEADERS, SETTINGS, END_HEADERS = 0, 1, 4, 4


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


head = b"".join(
    literal(name, value)
    for name, value in [
        (":method", "POST"),
        (":path", "/v2/token"),
        (":scheme", "https"),
        (":authority", f"127.0.0.1:{port}"),
        ("content-length", "1000"),
        ("content-type", "application/x-www-form-urlencoded"),
    ]
)
held = []
for number in range(connections):
    connection = socket.socket()
    connection.bind((f"127.0.1.{number + 2}", 0))
    connection.connect(("127.0.0.1", port))
    connection = tls.wrap_socket(connection)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
    for stream in range(1, 2 * streams, 2):
        connection.sendall(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, 0, stream, b"a"))
    held.append(connection)
print(f"{connections * streams} logins are open", flush=True)
while True:
    time.sleep(60)
