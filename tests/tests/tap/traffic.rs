//! Real clients at their daily work, and the recorder that is the tap's oracle.

use penstock_lab::{Daemon, Namespace};

use super::world::{BROKER, PATIENCE, PLC, PLC_V6, python, run};

/// What pymodbus asks of a controller: reads, writes, diagnostics, and identification.
const MASTER: &str = r#"
import sys
from pymodbus.client import ModbusTcpClient
client = ModbusTcpClient(sys.argv[1], port=502)
assert client.connect()
for turn in range(5):
    assert not client.read_holding_registers(10, count=20, device_id=1).isError()
    assert not client.read_holding_registers(100, count=5, device_id=1).isError()
    assert not client.write_register(40 + turn, 7 * turn, device_id=1).isError()
assert not client.write_registers(60, [1, 2, 3], device_id=1).isError()
assert not client.readwrite_registers(read_address=0, read_count=2, write_address=70, values=[9], device_id=1).isError()
client.diag_query_data(b"ab", device_id=1)
client.read_device_information(device_id=1)
client.close()
"#;

/// Three datagrams, each answered.
const MANAGER: &str = r#"
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
for turn in range(3):
    client.sendto(b"get", (sys.argv[1], 161))
    assert client.recv(99) == b"get"
"#;

/// Everything once: Modbus in both families by two clients, MQTT in both versions, and UDP, in which nothing is read.
pub fn everything(desk: &Namespace, folder: &str) {
    let script = format!("{folder}/master.py");
    std::fs::write(&script, MASTER).unwrap();
    for address in [PLC, PLC_V6] {
        run(desk, &python(), &[&script, address]);
    }
    let poll = ["-m", "tcp", "-a", "1", "-0", "-r", "5", "-c", "3", "-1", PLC];
    run(desk, "mbpoll", &poll);
    for (version, topic) in [
        ("mqttv311", "works/filters/7/pressure"),
        ("mqttv5", "works/it\"s/\u{b5}"),
    ] {
        let mut words = vec!["-h", BROKER, "-V", version, "-i", "desk-1", "-t", topic];
        words.extend(["-q", "1", "-r", "-m", "4.2"]);
        run(desk, "mosquitto_pub", &words);
    }
    // Longer than one packet, and than what is held of one.
    let long = "x".repeat(100_000);
    let file = format!("{folder}/long");
    std::fs::write(&file, long).unwrap();
    let words = ["-h", BROKER, "-i", "desk-2", "-t", "works/report", "-f", &file];
    run(desk, "mosquitto_pub", &words);
    let words = [
        "-h",
        BROKER,
        "-i",
        "desk-3",
        "-t",
        "works/filters/#",
        "-q",
        "2",
        "-C",
        "1",
        "-W",
        "20",
    ];
    run(desk, &python(), &["-c", MANAGER, PLC]);
    run(desk, "mosquitto_sub", &words);
}

/// tcpdump on an interface, into a file; it has begun when this returns.
pub fn record(place: &Namespace, name: &str, interface: &str, file: &str, more: &[&str]) -> Daemon {
    let words = [
        "-i",
        interface,
        "-U",
        "--immediate-mode",
        "-s",
        "0",
        "-B",
        "4096",
        "-Z",
        "root",
        "-w",
        file,
    ];
    let recorder = place
        .spawn(name, "tcpdump", &[&words[..], more].concat())
        .unwrap();
    recorder.wait_for_log("listening on", PATIENCE).unwrap();
    recorder
}
