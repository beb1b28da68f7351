//! What is no longer there: a peer that lost its power, and room for one more connection.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use penstock_lab::{self as lab, Namespace};
use penstock_tests::at_once;
use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_getfd, pidfd_open, setrlimit,
};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use super::life::{READ, ask, connect};
use super::world::{Agent, CLIENT, MODES, PATIENCE, SERVER, World, polling};

/// Copies of this process's sockets, of which the inspector's are some.
fn sockets() -> Vec<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let numbers = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = numbers.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let copy = |number| pidfd_getfd(&this, number, PidfdGetfdFlags::empty()).ok();
    numbers.filter_map(copy).collect()
}

/// Both legs of a connection: which of the sockets has such a far end, and such a near one.
fn legs(client: SocketAddr, server: SocketAddr) -> [OwnedFd; 2] {
    // Nobody copies the copies that somebody else is making: they would be all descriptors that there are.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let ends = |socket: &OwnedFd| {
        let socket = SockRef::from(socket);
        let peer = socket.peer_addr().ok()?.as_socket()?;
        Some((socket.local_addr().ok()?.as_socket()?, peer))
    };
    let find = |is: &dyn Fn(SocketAddr, SocketAddr) -> bool| {
        let found = sockets()
            .into_iter()
            .find(|socket| ends(socket).is_some_and(|(own, peer)| is(own, peer)));
        found.expect("no such leg")
    };
    [
        find(&|_, peer| peer == client),
        find(&|own, peer| peer == server && own.port() != client.port()),
    ]
}

/// From now on nothing comes to it and nothing leaves it, as if it were without power.
fn cut_off(side: &Namespace) {
    let chain = |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; policy drop; }}");
    let script = format!(
        "table inet cut_off {{\n{}\n{}\n}}",
        chain("input"),
        chain("output")
    );
    side.run_with_input("nft", &["-f", "-"], &script).unwrap();
}

fn is_reset(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_peer_that_lost_its_power_is_noticed_its_seat_is_given_back_and_the_other_side_is_reset() {
    lab::sandbox::test(
        "vanished::a_peer_that_lost_its_power_is_noticed_its_seat_is_given_back_and_the_other_side_is_reset",
        |lab| {
            // Ports of their own: in one process their sockets could not be told apart by their ends.
            let worlds: Vec<_> = (502..)
                .zip(
                    MODES
                        .into_iter()
                        .flat_map(|mode| [(mode, "client"), (mode, "server")]),
                )
                .map(|(port, (mode, gone))| (World::named(lab, mode, gone), port, gone))
                .collect();
            at_once(&worlds, |(world, port, gone)| {
                let (mode, server) = (world.mode, format!("{SERVER}:{port}"));
                let listener = world
                    .control
                    .enter(|| TcpListener::bind(&server).unwrap())
                    .unwrap();
                world.at_gateway(async || {
                    let mut agent = Agent::enforcing(world.plan(&[(*port, polling())])).await;
                    let dial = || {
                        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                        let [own, server] = [format!("{CLIENT}:{}", 40_000 + port), server.clone()]
                            .map(|address| address.parse::<SocketAddr>().unwrap());
                        socket.bind(&own.into())?;
                        socket.connect(&server.into())?;
                        std::io::Result::Ok(TcpStream::from(socket))
                    };
                    let mut client = world.office.enter(dial).unwrap().unwrap();
                    let (mut served, _) = listener.accept().unwrap();
                    let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
                    for leg in legs(ends.0, ends.1) {
                        let leg = SockRef::from(&leg);
                        assert!(leg.keepalive().unwrap());
                        // Never sooner, and never many: a link may be down for ten minutes.
                        let asks = (
                            leg.tcp_keepalive_time().unwrap(),
                            leg.tcp_keepalive_interval().unwrap(),
                        );
                        assert_eq!(asks, (Duration::from_secs(120), Duration::from_secs(60)));
                        assert_eq!(leg.tcp_keepalive_retries().unwrap(), 10);
                        let second = Duration::from_secs(1);
                        let hurried = TcpKeepalive::new().with_time(second).with_interval(second);
                        leg.set_tcp_keepalive(&hurried.with_retries(2)).unwrap();
                    }
                    // Whoever is there answers without saying anything: longer than the dead are waited for.
                    std::thread::sleep(Duration::from_secs(4));
                    assert_eq!(
                        agent.enforcer.inspected_connections(),
                        1,
                        "{mode:?}: a quiet peer was cut"
                    );
                    let (side, other) = match *gone {
                        "client" => (&world.office, &mut served),
                        _ => (&world.control, &mut client),
                    };
                    cut_off(side);
                    assert!(is_reset(other), "{mode:?} without the {gone}");
                    agent
                        .until(|seen| seen.text.contains(&format!("the {gone} no longer answers")))
                        .await;
                    assert_eq!(agent.enforcer.inspected_connections(), 0, "{mode:?}");
                });
            });
        },
    )
    .unwrap();
}

/// How much time the processor spent on this process.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
}

#[test]
fn without_descriptors_clients_are_reset_at_once_and_told_and_with_them_all_is_as_before() {
    lab::sandbox::test(
        "vanished::without_descriptors_clients_are_reset_at_once_and_told_and_with_them_all_is_as_before",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                // A program of its own, which has descriptors.
                let _plc = world.plc(SERVER);
                let server: SocketAddr = format!("{SERVER}:502").parse().unwrap();
                world.at_gateway(async || {
                    let mut agent = Agent::enforcing(world.plan(&[(502, polling())])).await;
                    let mut standing = connect(&world).unwrap();
                    assert_eq!(ask(&mut standing, &READ).unwrap()[0], 3, "{mode:?}");
                    let before = getrlimit(Resource::Nofile);
                    for round in 0..2 {
                        let clients: Vec<Socket> = (0..12)
                            .map(|_| {
                                world
                                    .office
                                    .enter(|| Socket::new(Domain::IPV4, Type::STREAM, None))
                                    .unwrap()
                            })
                            .collect::<Result<_, _>>()
                            .unwrap();
                        let limit = Rlimit {
                            current: Some(clients.len() as u64 + 128),
                            ..before
                        };
                        setrlimit(Resource::Nofile, limit).unwrap();
                        // None of all these is closed before the end: what is closed is room.
                        let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
                        let (mut kept, mut refused) = (Vec::new(), 0);
                        for client in clients {
                            // The reset may be there before connecting is over, at the request, or at its answer.
                            let connected = client.connect_timeout(&server.into(), Duration::from_secs(5));
                            let mut client = TcpStream::from(client);
                            client.set_read_timeout(Some(PATIENCE)).unwrap();
                            let asked = connected.and_then(|()| ask(&mut client, &READ));
                            // Something else of this process may have made room meanwhile: then it is served.
                            if let Err(error) = asked {
                                let kind = error.kind();
                                assert!(
                                    [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind),
                                    "{mode:?} round {round}: {kind:?}, it is left waiting"
                                );
                                refused += 1;
                            }
                            kept.push(client);
                        }
                        assert!(refused > 0, "{mode:?} round {round}: there was always room");
                        let (begun, busy) = (Instant::now(), spent());
                        std::thread::sleep(Duration::from_secs(1));
                        let busy = (spent() - busy).as_secs_f64() / begun.elapsed().as_secs_f64();
                        assert!(busy < 0.5, "{mode:?} round {round}: it spins, {busy}");
                        assert_eq!(
                            ask(&mut standing, &READ).unwrap(),
                            [3, 2, 3, 239],
                            "what stands goes on"
                        );
                        drop((held, kept));
                        setrlimit(Resource::Nofile, before).unwrap();
                        let fault = agent.enforcer.inspector_fault().unwrap();
                        assert!(fault.contains("raise LimitNOFILE"), "{fault}");
                        let mut new = connect(&world).unwrap();
                        assert_eq!(
                            ask(&mut new, &READ).unwrap(),
                            [3, 2, 3, 239],
                            "{mode:?} round {round}"
                        );
                    }
                    let told = agent
                        .until(|seen| seen.text.contains("no file descriptor left"))
                        .await;
                    assert_eq!(told.last().unwrap().client.to_string(), CLIENT);
                });
            }
        },
    )
    .unwrap();
}
