//! Devices that answer otherwise than the standard says, behind a gateway that observes, then enforces.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use penstock_lab as lab;
use penstock_policy::plan::{Observing, Plan};
use penstock_policy::terms::Answers;
use penstock_policy::verdict::Decision;

use super::world::{Agent, MODES, PATIENCE, SERVER, SERVER6, World, polling};

const READ: [u8; 12] = [0, 5, 0, 0, 0, 6, 1, 3, 0, 7, 0, 1];

/// What the server sends for [`READ`], and whether it passes where it is enforced: strictly, and in order.
const ANSWERS: [(&str, &[u8], [bool; 2]); 7] = [
    ("as asked", &[0, 5, 0, 0, 0, 5, 1, 3, 2, 0, 9], [true, true]),
    ("as unit 255", &[0, 5, 0, 0, 0, 5, 255, 3, 2, 0, 9], [true, true]),
    (
        "without a transaction",
        &[0, 0, 0, 0, 0, 5, 1, 3, 2, 0, 9],
        [false, true],
    ),
    (
        "the next transaction",
        &[0, 6, 0, 0, 0, 5, 1, 3, 2, 0, 9],
        [false, true],
    ),
    (
        "as another unit",
        &[0, 5, 0, 0, 0, 5, 8, 3, 2, 0, 9],
        [false, true],
    ),
    (
        "one byte short of its length",
        &[0, 5, 0, 0, 0, 6, 1, 3, 2, 0, 9],
        [false, false],
    ),
    ("by RTU over TCP", &[1, 3, 2, 0, 9, 0x78, 0x42], [false, false]),
];

/// Asks once on a connection of its own; what comes back, if anything does.
fn asked(world: &World, server: &str, listener: &TcpListener, answer: &[u8]) -> Option<Vec<u8>> {
    let mut client = world
        .office
        .enter(|| TcpStream::connect((server, 502)).unwrap())
        .unwrap();
    let (mut served, _) = listener.accept().unwrap();
    for stream in [&client, &served] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client.write_all(&READ).unwrap();
    let mut request = [0; READ.len()];
    served.read_exact(&mut request).unwrap();
    assert_eq!(request, READ);
    served.write_all(answer).unwrap();
    // What is withheld is never seen: the end, or a reset, comes in its place.
    served.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got);
    (!got.is_empty()).then_some(got)
}

#[test]
fn odd_answers_pass_unchanged_while_observed_and_enforcing_withholds_what_was_foretold() {
    lab::sandbox::test(
        "observing::odd_answers_pass_unchanged_while_observed_and_enforcing_withholds_what_was_foretold",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let listen =
                    |server: &'static str| world.control.enter(|| TcpListener::bind((server, 502)).unwrap());
                let listeners = [SERVER, SERVER6].map(|server| (server, listen(server).unwrap()));
                world.at_gateway(async || {
                    let plan = |observing: Observing, answers: Answers| {
                        let mut plan = world.plan(&[(502, polling())]);
                        plan.interfaces
                            .iter_mut()
                            .for_each(|side| side.observing = observing.clone());
                        plan.rules.iter_mut().for_each(|rule| rule.answers = answers);
                        plan
                    };
                    let mut agent = Agent::enforcing(plan(Observing::Everything, Answers::Strict)).await;
                    let ask = |server: &'static str, listener: &TcpListener, answer: &'static [u8]| {
                        std::thread::scope(|scope| {
                            scope.spawn(|| asked(&world, server, listener, answer)).join()
                        })
                    };
                    for (server, listener) in &listeners {
                        for (what, answer, _) in ANSWERS {
                            let got = ask(server, listener, answer).unwrap();
                            assert_eq!(got.as_deref(), Some(answer), "{mode:?} {server} observed, {what}");
                        }
                    }
                    let told = "another transaction identifier";
                    let seen = agent.until(|seen| seen.text.contains(told)).await;
                    assert_eq!(seen.last().unwrap().decision, Some(Decision::WouldDeny));
                    assert!(agent.enforcer.foretold().unwrap().contains("hmi to plc"));
                    for (revision, answers, column) in [(2, Answers::Strict, 0), (3, Answers::InOrder, 1)] {
                        agent.apply(plan(Observing::Nothing, answers), revision).await;
                        for (server, listener) in &listeners {
                            for (what, answer, passes) in ANSWERS {
                                let got = ask(server, listener, answer).unwrap();
                                let passed = got.as_deref() == Some(answer);
                                assert_eq!(
                                    passed, passes[column],
                                    "{mode:?} {server} {answers:?}, {what}: {got:?}"
                                );
                            }
                        }
                    }
                });
            }
        },
    )
    .unwrap();
}

/// A request through to the server and its answer back, each of which the other end must have.
fn exchanged(client: &mut TcpStream, served: &mut TcpStream) -> std::io::Result<()> {
    const ANSWER: [u8; 11] = [0, 5, 0, 0, 0, 5, 1, 3, 2, 0, 9];
    client.write_all(&READ)?;
    let mut request = [0; READ.len()];
    served.read_exact(&mut request)?;
    served.write_all(&ANSWER)?;
    let mut answer = [0; ANSWER.len()];
    client.read_exact(&mut answer)?;
    assert_eq!((request, answer), (READ, ANSWER));
    Ok(())
}

#[test]
fn a_standing_connection_whose_flow_is_removed_goes_on_between_zones_that_observe() {
    lab::sandbox::test(
        "observing::a_standing_connection_whose_flow_is_removed_goes_on_between_zones_that_observe",
        |lab| {
            let folder = lab.directory().to_owned();
            for mode in MODES {
                let world = World::new(lab, mode);
                let listen =
                    |server: &'static str| world.control.enter(|| TcpListener::bind((server, 502)).unwrap());
                let listeners = [SERVER, SERVER6].map(|server| (server, listen(server).unwrap()));
                world.at_gateway(async || {
                    let flow = |observing: Observing| {
                        let mut plan = world.plan(&[(502, polling())]);
                        plan.interfaces
                            .iter_mut()
                            .for_each(|side| side.observing = observing.clone());
                        plan
                    };
                    let observed = || flow(Observing::Everything);
                    let without = |mut plan: Plan| {
                        plan.rules.clear();
                        plan
                    };
                    let mut plain = observed();
                    plain.rules.iter_mut().for_each(|rule| rule.operations = None);
                    let mut in_order = observed();
                    in_order
                        .rules
                        .iter_mut()
                        .for_each(|rule| rule.answers = Answers::InOrder);
                    let open = |(server, listener): &(&'static str, TcpListener)| {
                        let connect = || TcpStream::connect((*server, 502)).unwrap();
                        let client = world.office.enter(connect).unwrap();
                        let (served, _) = listener.accept().unwrap();
                        for stream in [&client, &served] {
                            stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        }
                        (client, served)
                    };
                    let agent = Agent::enforcing(observed()).await;
                    let mut standing: Vec<_> = listeners.iter().map(open).collect();
                    let mut exchange = |what: &str| {
                        for (client, served) in &mut standing {
                            let done = exchanged(client, served);
                            assert!(done.is_ok(), "{mode:?} {what}: {done:?}");
                        }
                    };
                    exchange("opened");
                    for (revision, (what, plan)) in (2..).zip([
                        ("removed", without(observed())),
                        ("back", observed()),
                        ("answers in order", in_order),
                        ("plain", plain),
                        ("removed when plain", without(observed())),
                        ("enforced", flow(Observing::Nothing)),
                        ("observed and removed at once", without(observed())),
                    ]) {
                        agent.apply(plan, revision).await;
                        exchange(what);
                        if what == "removed" {
                            // Whoever comes now is not inspected, and passes.
                            for listener in &listeners {
                                let (mut client, mut served) = open(listener);
                                exchanged(&mut client, &mut served).unwrap();
                            }
                        }
                    }
                    // No flow is inspected any more, and the agent is restarted.
                    let agent = agent.restarted(&folder).await;
                    agent.apply(without(observed()), 19).await;
                    exchange("restarted");
                    agent.apply(without(flow(Observing::Nothing)), 20).await;
                    for (client, served) in &mut standing {
                        client
                            .set_read_timeout(Some(std::time::Duration::from_secs(2)))
                            .unwrap();
                        served
                            .set_read_timeout(Some(std::time::Duration::from_secs(2)))
                            .unwrap();
                        let done = exchanged(client, served);
                        assert!(done.is_err(), "{mode:?}: an enforcing zone ends it");
                    }
                });
            }
        },
    )
    .unwrap();
}
