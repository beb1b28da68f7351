//! What becomes of standing connections: change of policy, revocation, limits, many of them.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use penstock_agent::inspector::SeatLimits;
use penstock_lab as lab;
use penstock_policy::ids::ConduitId;
use penstock_policy::plan::{Capability, Grant};

use super::world::{Agent, CLIENT, MODES, PATIENCE, SERVER, World, polling};

/// How long is waited for what must not come.
const SILENCE: Duration = Duration::from_secs(1);

pub const READ: [u8; 12] = [0, 1, 0, 0, 0, 6, 1, 3, 0, 7, 0, 1];
const WRITE: [u8; 12] = [0, 2, 0, 0, 0, 6, 1, 6, 0, 7, 0, 9];

/// A controller that answers each request with its own bytes, as an answer to a single write does, or a read of one.
pub fn controller(world: &World) -> Arc<Mutex<Vec<SocketAddr>>> {
    let listener = world
        .control
        .enter(|| TcpListener::bind(format!("{SERVER}:502")).unwrap())
        .unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Gone already, if it has no peer.
            let Ok(peer) = stream.peer_addr() else { continue };
            sees.lock().unwrap().push(peer);
            std::thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || {
                    let mut request = [0; 12];
                    while stream.read_exact(&mut request).is_ok() {
                        let answer = match request[7] {
                            3 => [&request[..4], &[0, 5, 1, 3, 2, 3, 239]].concat(),
                            _ => request.to_vec(),
                        };
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                })
                .unwrap();
        }
    });
    seen
}

pub fn connect(world: &World) -> std::io::Result<TcpStream> {
    connect_within(PATIENCE, world)
}

fn connect_within(patience: Duration, world: &World) -> std::io::Result<TcpStream> {
    let address: SocketAddr = format!("{SERVER}:502").parse().unwrap();
    let stream = world
        .office
        .enter(|| TcpStream::connect_timeout(&address, patience))
        .unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The answer's function code and what follows; an error for a connection that is gone.
pub fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut head = [0; 6];
    stream.read_exact(&mut head)?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]]))];
    stream.read_exact(&mut rest)?;
    Ok(rest[1..].to_vec())
}

#[test]
fn a_standing_connection_comes_under_another_policy_at_its_next_request() {
    lab::sandbox::test(
        "life::a_standing_connection_comes_under_another_policy_at_its_next_request",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let seen = controller(&world);
                world.at_gateway(async || {
                    let agent = Agent::enforcing(world.plan(&[(502, polling())])).await;
                    let mut standing = connect(&world).unwrap();
                    assert_eq!(ask(&mut standing, &READ).unwrap(), [3, 2, 3, 239], "{mode:?}");
                    assert_eq!(seen.lock().unwrap()[0].ip().to_string(), CLIENT);
                    assert_eq!(ask(&mut standing, &WRITE).unwrap(), [0x86, 2], "{mode:?}");
                    // No longer limited: it goes on, and so does a new one, which is not carried any more.
                    agent.apply(world.plan(&[(502, None)]), 2).await;
                    assert_eq!(ask(&mut standing, &WRITE).unwrap()[0], 6, "{mode:?}");
                    let mut straight = connect(&world).unwrap();
                    assert_eq!(ask(&mut straight, &WRITE).unwrap()[0], 6, "{mode:?}");
                    assert_eq!(agent.enforcer.inspected_connections(), 1, "{mode:?}");
                    // Limited again: what is carried is judged, what is not ends.
                    agent.apply(world.plan(&[(502, polling())]), 3).await;
                    assert_eq!(ask(&mut standing, &WRITE).unwrap(), [0x86, 2], "{mode:?}");
                    straight.set_read_timeout(Some(SILENCE)).unwrap();
                    assert!(ask(&mut straight, &WRITE).is_err(), "{mode:?}");
                    // Revoked: both ends hear of it at once.
                    agent.apply(world.plan(&[(503, polling())]), 4).await;
                    let error = standing.read(&mut [0; 1]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{mode:?}");
                    assert!(connect_within(SILENCE, &world).is_err(), "{mode:?}");
                    lab::wait_until("the connection's end", PATIENCE, || {
                        agent.enforcer.inspected_connections() == 0
                    })
                    .unwrap();
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn a_silent_inspected_connection_ends_with_the_grant_that_opened_its_conduit() {
    lab::sandbox::test(
        "life::a_silent_inspected_connection_ends_with_the_grant_that_opened_its_conduit",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let _seen = controller(&world);
                let granted = |now| {
                    let mut plan = world.plan(&[(502, polling())]);
                    plan.requires
                        .insert(Capability(Capability::REMOTE_ACCESS.to_owned()));
                    let visit = Grant {
                        name: "visit".parse().unwrap(),
                        person: "Carla".to_owned(),
                        from_ms: 1_000,
                        until_ms: 2_000,
                    };
                    plan.grants.insert("supply".parse().unwrap(), vec![visit]);
                    plan.at(Some(now))
                };
                world.at_gateway(async || {
                    let agent = Agent::enforcing(granted(1_999)).await;
                    let mut standing = connect(&world).unwrap();
                    assert_eq!(ask(&mut standing, &READ).unwrap(), [3, 2, 3, 239], "{mode:?}");
                    agent.apply(granted(2_000), 1).await;
                    let error = standing.read(&mut [0; 1]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{mode:?}");
                    assert!(connect_within(SILENCE, &world).is_err(), "{mode:?}");
                });
            }
        },
    )
    .unwrap();
}

/// Nobody applies a plan here: the conduit ends before anything could be loaded.
#[test]
fn an_inspected_connection_ends_when_its_grant_does_and_not_when_a_plan_without_it_was_loaded() {
    lab::sandbox::test(
        "life::an_inspected_connection_ends_when_its_grant_does_and_not_when_a_plan_without_it_was_loaded",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let _seen = controller(&world);
                let mut plan = world.plan(&[(502, polling())]);
                plan.requires
                    .insert(Capability(Capability::REMOTE_ACCESS.to_owned()));
                let visit = Grant {
                    name: "visit".parse().unwrap(),
                    person: "Carla".to_owned(),
                    from_ms: 1_000,
                    until_ms: 2_000,
                };
                let conduit: ConduitId = "supply".parse().unwrap();
                plan.grants.insert(conduit.clone(), vec![visit]);
                let open = plan.at(Some(1_500));
                let left = |left| BTreeMap::from([(conduit.clone(), left)]);
                world.at_gateway(async || {
                    let agent = Agent::enforcing(open.clone()).await;
                    let hold = async |span| agent.enforcer.hold_open(left(span)).await.unwrap();
                    hold(Duration::from_secs(600)).await;
                    let mut standing = connect(&world).unwrap();
                    assert_eq!(ask(&mut standing, &READ).unwrap(), [3, 2, 3, 239], "{mode:?}");
                    hold(Duration::from_millis(300)).await;
                    let ends = tokio::task::spawn_blocking(move || standing.read(&mut [0; 1]).unwrap_err());
                    let error = ends.await.unwrap();
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{mode:?}");
                    // The kernel still leads to the inspector, which answers nobody.
                    let passes =
                        || connect_within(SILENCE, &world).and_then(|mut anew| ask(&mut anew, &READ));
                    assert!(passes().is_err(), "{mode:?}");
                    // A plan that comes late opens nothing that is over, and a grant that follows opens it again.
                    agent.apply(open.clone(), 2).await;
                    assert!(passes().is_err(), "{mode:?}");
                    hold(Duration::from_secs(600)).await;
                    assert_eq!(passes().unwrap(), [3, 2, 3, 239], "{mode:?}");
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn beyond_the_limit_a_connection_is_reset_and_the_others_go_on() {
    lab::sandbox::test(
        "life::beyond_the_limit_a_connection_is_reset_and_the_others_go_on",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let _seen = controller(&world);
                world.at_gateway(async || {
                    let mut agent = Agent::start(SeatLimits {
                        connections_max: 3,
                        connections_per_client_max: 3,
                        ..SeatLimits::default()
                    });
                    agent.apply(world.plan(&[(502, polling())]), 1).await;
                    let mut standing: Vec<_> = (0..3).map(|_| connect(&world).unwrap()).collect();
                    for stream in &mut standing {
                        ask(stream, &READ).unwrap();
                    }
                    let more = connect(&world).and_then(|mut stream| ask(&mut stream, &READ));
                    assert_eq!(more.unwrap_err().kind(), ErrorKind::ConnectionReset, "{mode:?}");
                    agent.until(|seen| seen.text.contains("limit of 3")).await;
                    for stream in &mut standing {
                        ask(stream, &READ).unwrap();
                    }
                    standing.pop();
                    let freed = Instant::now();
                    while connect(&world)
                        .and_then(|mut stream| ask(&mut stream, &READ))
                        .is_err()
                    {
                        assert!(freed.elapsed() < PATIENCE, "a seat is not free again");
                    }
                });
            }
        },
    )
    .unwrap();
}

/// Lets this process, and those that it starts, have a few thousand connections.
pub fn allow_sockets() {
    let limit = rustix::process::Rlimit {
        current: Some(16_384),
        maximum: Some(16_384),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

#[test]
fn a_client_that_floods_a_deaf_server_is_ended_and_told_and_others_go_on() {
    lab::sandbox::test(
        "life::a_client_that_floods_a_deaf_server_is_ended_and_told_and_others_go_on",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                // One server that takes nothing, and one that answers.
                let address = format!("{SERVER}:503");
                let _deaf = world
                    .control
                    .enter(|| TcpListener::bind(&address).unwrap())
                    .unwrap();
                let _seen = controller(&world);
                world.at_gateway(async || {
                    let flows = [(502, polling()), (503, polling())];
                    let mut agent = Agent::enforcing(world.plan(&flows)).await;
                    let address: SocketAddr = address.parse().unwrap();
                    let mut flood = world
                        .office
                        .enter(|| TcpStream::connect(address).unwrap())
                        .unwrap();
                    flood.set_write_timeout(Some(PATIENCE)).unwrap();
                    let mut sent = 0_usize;
                    let stopped = loop {
                        match flood.write(&READ.repeat(100)) {
                            Ok(count) => sent += count,
                            Err(error) => break error,
                        }
                        assert!(
                            sent < 64 << 20,
                            "{mode:?}: what nobody takes is taken without end"
                        );
                    };
                    assert_ne!(stopped.kind(), ErrorKind::WouldBlock, "{mode:?}: {sent}");
                    agent
                        .until(|seen| seen.text.contains("too much waits for it"))
                        .await;
                    let mut other = connect(&world).unwrap();
                    for _ in 0..100 {
                        ask(&mut other, &READ).unwrap();
                    }
                });
            }
        },
    )
    .unwrap();
}

#[test]
fn a_thousand_connections_are_inspected_at_once_and_each_is_answered() {
    lab::sandbox::test(
        "life::a_thousand_connections_are_inspected_at_once_and_each_is_answered",
        |lab| {
            allow_sockets();
            for mode in MODES {
                let world = World::new(lab, mode);
                let _seen = controller(&world);
                world.at_gateway(async || {
                    let agent = Agent::enforcing(world.plan(&[(502, polling())])).await;
                    let mut all: Vec<_> = world
                        .office
                        .enter(|| (0..1000).map(|_| connect(&world).unwrap()).collect())
                        .unwrap();
                    for _ in 0..3 {
                        for stream in &mut all {
                            assert_eq!(ask(stream, &READ).unwrap(), [3, 2, 3, 239], "{mode:?}");
                        }
                    }
                    assert_eq!(agent.enforcer.inspected_connections(), 1000);
                    agent.apply(world.plan(&[(502, None)]), 2).await;
                    for stream in &mut all {
                        assert_eq!(ask(stream, &WRITE).unwrap()[0], 6, "{mode:?}");
                    }
                });
            }
        },
    )
    .unwrap();
}
