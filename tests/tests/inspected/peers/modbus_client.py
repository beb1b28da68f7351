"""Modbus clients of two stacks. Usage: STACK VERB SERVER ADDRESS [VALUE], or poll SERVER SECONDS.

Prints what came back: the value, `exception N`, or `failed: …`. `poll` reads a register 100 times a second over one
connection and prints `polled N failed M slowest MS`, beginning with `polling` after the first answer.
"""

import sys
import time


def pymodbus(verb, server, address, value=0):
    from pymodbus.client import ModbusTcpClient

    client = ModbusTcpClient(server, timeout=3, retries=0)
    client.connect()
    if verb == "read":
        answer = client.read_holding_registers(address, count=1, device_id=1)
    else:
        answer = client.write_register(address, value, device_id=1)
    if answer.isError():
        return f"exception {answer.exception_code}"
    return str(answer.registers[0])


def umodbus(verb, server, address, value=0):
    import socket

    from umodbus import exceptions
    from umodbus.client import tcp

    with socket.create_connection((server, 502), timeout=3) as connection:
        try:
            if verb == "read":
                request = tcp.read_holding_registers(slave_id=1, starting_address=address, quantity=1)
                return str(tcp.send_message(request, connection)[0])
            request = tcp.write_single_register(slave_id=1, address=address, value=value)
            return str(tcp.send_message(request, connection))
        except exceptions.ModbusError as error:
            return f"exception {error.error_code}"


def poll(server, seconds):
    from pymodbus.client import ModbusTcpClient

    client = ModbusTcpClient(server, timeout=5, retries=0)
    client.connect()
    polled = failed = 0
    slowest = 0.0
    end = time.monotonic() + float(seconds)
    due = time.monotonic()
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            answer = client.read_holding_registers(7, count=1, device_id=1)
            good = not answer.isError() and answer.registers == [1007]
        except Exception as error:
            print("failed:", error, flush=True)
            good = False
        polled, failed = polled + 1, failed + (not good)
        slowest = max(slowest, time.monotonic() - began)
        if polled == 1:
            print("polling", flush=True)
        if not good:
            client.close()
            time.sleep(0.05)
            client.connect()
        due = max(due + 0.01, time.monotonic() - 0.05)
        time.sleep(max(0.0, due - time.monotonic()))
    print(f"polled {polled} failed {failed} slowest {slowest * 1000:.0f}", flush=True)


stack = sys.argv[1]
if stack == "poll":
    poll(*sys.argv[2:])
else:
    verb, server, *numbers = sys.argv[2:]
    try:
        print({"pymodbus": pymodbus, "umodbus": umodbus}[stack](verb, server, *map(int, numbers)))
    except Exception as error:
        print("failed:", type(error).__name__, error)
