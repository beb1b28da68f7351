//! The next plan in its shadow, of connections that are inspected: what it would refuse is counted, and passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use penstock_agent::kernel::ShadowReport;
use penstock_lab as lab;
use penstock_policy::ids::Revision;
use penstock_policy::plan::Plan;
use penstock_policy::protocol::Operations;

use super::world::{Agent, MODES, PATIENCE, SERVER, World, function, polling};

/// A controller that answers each request with its own first bytes, as one that writes a register does; until its clients are gone.
fn controller(world: &World) -> std::thread::JoinHandle<()> {
    let listener = world
        .control
        .enter(|| TcpListener::bind((SERVER, 502)).unwrap())
        .unwrap();
    std::thread::spawn(move || {
        let (mut served, _) = listener.accept().unwrap();
        let mut request = [0; 12];
        while served.read_exact(&mut request).is_ok() {
            served.write_all(&request).unwrap();
        }
    })
}

fn connect(world: &World) -> TcpStream {
    let dial = || TcpStream::connect((SERVER, 502)).unwrap();
    let stream = world.office.enter(dial).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Writes a register, and gives the function code of the answer.
fn write(client: &mut TcpStream, register: u8) -> u8 {
    let request = [0, register, 0, 0, 0, 6, 1, 6, 0, register, 0, 5];
    // In two pieces, as a slow client may.
    for piece in [&request[..5], &request[5..]] {
        client.write_all(piece).unwrap();
    }
    let mut head = [0; 8];
    client.read_exact(&mut head).unwrap();
    let mut rest = vec![0; usize::from(head[5]) - 2];
    client.read_exact(&mut rest).unwrap();
    head[7]
}

async fn begin(agent: &Agent, next: &Plan) {
    let next = Some((Arc::new(next.clone()), Revision(2)));
    agent.enforcer.shadow(next).await.unwrap();
}

async fn read(agent: &Agent) -> ShadowReport {
    agent.enforcer.shadowed().await.unwrap()
}

#[test]
fn an_inspected_write_that_the_next_release_forbids_is_counted_and_passes() {
    lab::sandbox::test(
        "shadow::an_inspected_write_that_the_next_release_forbids_is_counted_and_passes",
        |lab| {
            for mode in MODES {
                let world = World::new(lab, mode);
                let plc = controller(&world);
                let mut plan = world.plan(&[(502, polling())]);
                plan.rules[0].must_flow = true;
                world.at_gateway(async || {
                    let agent = Agent::enforcing(plan.clone()).await;
                    let mut client = connect(&world);
                    assert_eq!(write(&mut client, 40), 6);
                    let mut next = plan.clone();
                    let fewer = Operations::from(vec![
                        function("read-holding-registers", None),
                        function("write-single-register", Some((40, 44))),
                    ]);
                    next.rules[0].operations = Some(Arc::new(fewer));
                    begin(&agent, &next).await;
                    // Permitted by both; by the one in force alone; by none, which is refused today.
                    assert_eq!(
                        [40, 45, 50].map(|register| write(&mut client, register)),
                        [6, 6, 0x86]
                    );
                    let report = read(&agent).await;
                    let expected = ShadowReport {
                        since_ms: report.since_ms,
                        since_boot: report.since_boot,
                        judged_packets: report.judged_packets,
                        would_deny_operations: 1,
                        flows: vec!["supply/flow-1".to_owned()],
                        cuts_must_flow: true,
                        ..ShadowReport::default()
                    };
                    assert_eq!(report, expected, "{mode:?}");
                    // What would not stand at all, and what stands and would first be read.
                    begin(&agent, &world.plan(&[])).await;
                    assert_eq!(write(&mut client, 41), 6);
                    let report = read(&agent).await;
                    assert_eq!(report.would_cut_connections, 1, "{mode:?}: {report:?}");
                    assert!(report.cuts_must_flow, "{mode:?}: {report:?}");
                    agent.enforcer.shadow(None).await.unwrap();
                    assert_eq!(agent.enforcer.shadowed().await, None);
                    assert_eq!(write(&mut client, 42), 6);
                    client.shutdown(Shutdown::Both).unwrap();
                });
                plc.join().unwrap();
            }
        },
    )
    .unwrap();
}
