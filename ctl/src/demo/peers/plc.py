"""A programmable controller for the demo: pymodbus' server with 200 holding registers.

Usage: plc.py ADDRESS FIRST_VALUE. Register n holds FIRST_VALUE + n until somebody writes it.
"""

import sys

from pymodbus.server import StartTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

address, first_value = sys.argv[1], int(sys.argv[2])
registers = SimData(0, values=[first_value + n for n in range(200)], datatype=DataType.REGISTERS)
print(f"controller at {address}:502", flush=True)
StartTcpServer(SimDevice(1, simdata=[registers]), address=(address, 502))
