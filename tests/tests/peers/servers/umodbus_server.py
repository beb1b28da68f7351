"""A Modbus server of the uModbus stack: 100 holding registers and 100 coils, any unit. Usage: ADDRESS PORT."""

import sys
from socketserver import ThreadingTCPServer

from umodbus.server.tcp import RequestHandler, get_server

ThreadingTCPServer.allow_reuse_address = True
ThreadingTCPServer.daemon_threads = True
server = get_server(ThreadingTCPServer, (sys.argv[1], int(sys.argv[2])), RequestHandler)
registers = [1000 + n for n in range(100)]
coils = [n % 2 for n in range(100)]
everywhere = list(range(100))


@server.route(function_codes=[3, 4], addresses=everywhere)
def read_register(slave_id, function_code, address):
    return registers[address]


@server.route(function_codes=[6, 16], addresses=everywhere)
def write_register(slave_id, function_code, address, value):
    registers[address] = value


@server.route(function_codes=[1, 2], addresses=everywhere)
def read_coil(slave_id, function_code, address):
    return coils[address]


@server.route(function_codes=[5, 15], addresses=everywhere)
def write_coil(slave_id, function_code, address, value):
    coils[address] = value


server.serve_forever()
