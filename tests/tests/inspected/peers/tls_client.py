"""Clients that speak TLS with a certificate, of two Modbus stacks and Python's own `ssl`.

Usage: STACK SERVER PORT AUTHORITY CERTIFICATE KEY VERB ADDRESS [VALUE], the stack pymodbus or umodbus; or
ssl SERVER PORT AUTHORITY CERTIFICATE KEY BYTES: sends so many bytes and reads them back, then says that no more come; or
wait SERVER PORT AUTHORITY CERTIFICATE KEY: prints `standing` once it stands, and how it ends.

Prints what came back: the value, `exception N`, what an echo names and whether it was the same, or `failed: …`.
"""

import select
import socket
import ssl
import sys


def context(authority, certificate, key):
    made = ssl.create_default_context(cafile=authority)
    made.load_cert_chain(certificate, key)
    return made


def connect(server, port, files):
    plain = socket.create_connection((server, int(port)), timeout=5)
    # Only what TLS itself ends in order is an end: Python takes a reset for one otherwise.
    return context(*files).wrap_socket(plain, server_hostname=server, suppress_ragged_eofs=False)


def pymodbus(server, port, files, verb, address, value=0):
    from pymodbus.client import ModbusTlsClient

    client = ModbusTlsClient(server, port=int(port), sslctx=context(*files), timeout=5, retries=0)
    # As the library leaves it, the name is not checked: what Python's own stack does of it is.
    client.comm_params.sslctx.check_hostname = False
    if not client.connect():
        return "failed: no connection"
    if verb == "read":
        answer = client.read_holding_registers(address, count=1, device_id=1)
    else:
        answer = client.write_register(address, value, device_id=1)
    if answer.isError():
        return f"exception {answer.exception_code}"
    return str(answer.registers[0])


def umodbus(server, port, files, verb, address, value=0):
    from umodbus import exceptions
    from umodbus.client import tcp

    with connect(server, port, files) as connection:
        try:
            if verb == "read":
                request = tcp.read_holding_registers(slave_id=1, starting_address=address, quantity=1)
                return str(tcp.send_message(request, connection)[0])
            request = tcp.write_single_register(slave_id=1, address=address, value=value)
            return str(tcp.send_message(request, connection))
        except exceptions.ModbusError as error:
            return f"exception {error.error_code}"


def echo(server, port, files, count):
    sent = bytes(number * 7 % 251 for number in range(int(count)))
    with connect(server, port, files) as connection:
        # By one thread: Python's ssl is not safe for one that reads beside one that writes.
        connection.setblocking(False)
        left, heard = memoryview(sent), b""
        while not (b"\n" in heard and len(heard) - heard.index(b"\n") > len(sent)):
            moved = False
            try:
                if left:
                    left = left[connection.send(left[:16384]) :]
                    moved = True
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            try:
                more = connection.recv(65536)
                if not more:
                    raise EOFError("it ended before all came back")
                heard, moved = heard + more, True
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            if not moved and select.select([connection], [connection] if left else [], [], 5) == ([], [], []):
                raise TimeoutError("nothing moves any more")
        connection.settimeout(5)
        connection.unwrap()
    name, got = heard.split(b"\n", 1)
    return f"{name.decode().strip()} {'same' if got == sent else 'other'}"


def wait(server, port, files):
    with connect(server, port, files) as connection:
        connection.sendall(b"standing")
        connection.settimeout(60)
        heard = b""
        while not heard.endswith(b"standing"):
            heard += connection.recv(64)
        print("standing", flush=True)
        try:
            return "ended" if connection.recv(64) == b"" else "more"
        except OSError as error:
            return f"cut {type(error).__name__}"


stack, server, port, authority, certificate, key, *rest = sys.argv[1:]
files = (authority, certificate, key)
try:
    if stack == "ssl":
        print(echo(server, port, files, *rest))
    elif stack == "wait":
        print(wait(server, port, files))
    else:
        verb, *numbers = rest
        print({"pymodbus": pymodbus, "umodbus": umodbus}[stack](server, port, files, verb, *map(int, numbers)))
except Exception as error:
    print("failed:", type(error).__name__, error)
