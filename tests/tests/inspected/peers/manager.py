"""A service manager in small: keeps descriptors for a program across restarts. Usage: SOCKET PROGRAM ARGUMENTS….

Starts the program with NOTIFY_SOCKET. On SIGHUP it ends the program (SIGTERM) and starts it again, with what it stored
(FDSTORE, FDSTOREREMOVE, BARRIER of sd_notify) as descriptors from 3 on. Prints what it does.
"""

import array
import os
import signal
import socket
import sys

path, program = sys.argv[1], sys.argv[2:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(path)
store = []


def start():
    pid = os.fork()
    if pid:
        print(f"started {pid} with {len(store)} descriptors", flush=True)
        return pid
    environment = dict(os.environ, NOTIFY_SOCKET=path)
    if store:
        # First out of the way, then to their places.
        moved = [os.dup2(descriptor, 500 + place) for place, (_, descriptor) in enumerate(store)]
        for place, descriptor in enumerate(moved):
            os.dup2(descriptor, 3 + place)
        os.closerange(3 + len(moved), 500 + len(moved))
        names = ":".join(name for name, _ in store)
        environment |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(store)), "LISTEN_FDNAMES": names}
    os.execve(program[0], program, environment)


def handle():
    message, control, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(256 * 4))
    fields = dict(line.split("=", 1) for line in message.decode().splitlines())
    received = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(data)
    if fields.get("FDSTORE") == "1":
        store.extend((fields["FDNAME"], descriptor) for descriptor in received)
        return
    for descriptor in received:
        os.close(descriptor)
    if fields.get("FDSTOREREMOVE") == "1":
        for name, descriptor in list(store):
            if name == fields["FDNAME"]:
                os.close(descriptor)
                store.remove((name, descriptor))
    if fields.get("READY") == "1":
        print("ready", flush=True)


wanted = []
signal.signal(signal.SIGHUP, lambda *_: wanted.append(True))
notify.settimeout(0.01)
pid = start()
while True:
    try:
        handle()
    except TimeoutError:
        pass
    if wanted:
        wanted.clear()
        os.kill(pid, signal.SIGTERM)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            try:
                handle()
            except TimeoutError:
                pass
        pid = start()
