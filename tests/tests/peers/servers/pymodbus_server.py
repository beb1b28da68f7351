"""A Modbus server of the pymodbus stack: 100 holding registers that are also coils, any unit. Usage: ADDRESS PORT."""

import sys

from pymodbus.server import StartTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

registers = SimData(0, values=[1000 + n for n in range(100)], datatype=DataType.REGISTERS)
StartTcpServer(SimDevice(0, simdata=[registers]), address=(sys.argv[1], int(sys.argv[2])))
