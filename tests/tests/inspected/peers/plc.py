"""A controller of the pymodbus stack: register n holds 1000 + n until somebody writes it. Usage: ADDRESS."""

import sys

from pymodbus.server import StartTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

registers = SimData(0, values=[1000 + n for n in range(200)], datatype=DataType.REGISTERS)
StartTcpServer(SimDevice(1, simdata=[registers]), address=(sys.argv[1], 502))
