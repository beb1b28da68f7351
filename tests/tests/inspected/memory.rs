//! The agent's memory under a limit that the kernel keeps, as `MemoryMax` of its unit does.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use penstock_lab as lab;
use penstock_policy::terms::GatewayMode;

use super::life;
use super::restart::{agent, prepare};
use super::world::{PATIENCE, SERVER, SERVER6, World, polling, telemetry};

/// What the agent may take beyond what it has before the attack, bytes.
const ROOM: u64 = 24 * 1024 * 1024;
/// Connections of each of the two clients; together they try to leave a half more than there is room for.
const CONNECTIONS: usize = 300;

/// The program's private memory that can be written, bytes: what the limit is about.
fn data_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmData:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Accepts and keeps what comes.
fn deaf(world: &World, server: &str) {
    let address: SocketAddr = (server.parse::<std::net::IpAddr>().unwrap(), 1883).into();
    let listener = world
        .control
        .enter(|| TcpListener::bind(address).unwrap())
        .unwrap();
    std::thread::spawn(move || {
        let _kept: Vec<_> = listener.incoming().collect();
    });
}

/// Opens connections, and leaves on each a CONNECT that lacks its last byte.
fn attack(server: &'static str) -> Vec<TcpStream> {
    let mut unfinished = vec![0x10, 0xe0, 0xd4, 0x03];
    unfinished.extend(b"\x00\x04MQTT\x04\x02\x00\x3c\xea\x60");
    unfinished.resize(60_000, b'c');
    let address: SocketAddr = (server.parse::<std::net::IpAddr>().unwrap(), 1883).into();
    let mut all = Vec::new();
    for _ in 0..CONNECTIONS {
        // Nobody is there any more.
        let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
            break;
        };
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // It may be reset meanwhile: that is what a bound means.
        let _reset = stream.write_all(&unfinished);
        all.push(stream);
    }
    all
}

#[test]
fn two_mqtt_clients_that_leave_packets_unfinished_do_not_get_the_agent_killed_for_its_memory() {
    lab::sandbox::test(
        "memory::two_mqtt_clients_that_leave_packets_unfinished_do_not_get_the_agent_killed_for_its_memory",
        |lab| {
            life::allow_sockets();
            let world = World::new(lab, GatewayMode::Routed);
            let _seen = life::controller(&world);
            for server in [SERVER, SERVER6] {
                deaf(&world, server);
            }
            let config = prepare(lab, &world, &world.plan(&[(502, polling()), (1883, telemetry())]));
            let held = "[inspect]\nheld_bytes_max = 4194304\n";
            let mut text = std::fs::read_to_string(&config).unwrap();
            text.push_str(held);
            std::fs::write(&config, text).unwrap();
            let mut command = world.gateway.command(&agent());
            command.args(["run", "--config"]).arg(&config);
            let running = world.gateway.spawn_command("agent", command).unwrap();
            running.wait_for_log("policy in force", PATIENCE).unwrap();
            let before = data_of(running.id());
            let limited = Command::new("prlimit")
                .args([
                    "--pid",
                    &running.id().to_string(),
                    &format!("--data={}", before + ROOM),
                ])
                .status()
                .unwrap();
            assert!(limited.success());
            let clients: Vec<_> = [SERVER, SERVER6]
                .map(|server| world.office.enter(|| attack(server)).unwrap())
                .into_iter()
                .flatten()
                .collect();
            assert!(clients.len() > CONNECTIONS, "{} connections stood", clients.len());
            // Whoever holds nothing is served as ever.
            let mut modest = life::connect(&world).unwrap();
            modest.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            life::ask(&mut modest, &life::READ).unwrap();
            let with = data_of(running.id());
            println!(
                "data: {before} bytes before, {with} with {} connections",
                clients.len()
            );
            assert!(with <= before + ROOM);
        },
    )
    .unwrap();
}
