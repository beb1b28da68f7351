//! Faults of the inspector's own, made to happen.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_fails_resets_what_it_carried_and_comes_back_under_the_policy_in_force() {
    let world = World::reading().await;
    let (mut client, mut served) = world.pair();
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ, "both legs stand");
    // In the middle of a request.
    client.write_all(&READ[..7]).unwrap();
    let threads = world.inspector.commands();
    for commands in &threads {
        commands.send(Command::Fail).await.unwrap();
    }
    assert!(is_reset(&mut client));
    assert!(is_reset(&mut served));
    let restarted = format!("{} of its threads were restarted", threads.len());
    let counted = async {
        while !world
            .inspector
            .fault()
            .is_some_and(|fault| fault.contains(&restarted))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
    // The listener stays, so that the kernel's rules go on to hand over: nothing is forwarded unread meanwhile.
    let mut client = world.connect();
    client.write_all(&WRITE).unwrap();
    assert_eq!(read_exactly(&mut client, 9)[7..], [0x86, 1], "it is judged");
    let (mut served, _) = world.server.accept().unwrap();
    client.write_all(&READ).unwrap();
    assert_eq!(read_exactly(&mut served, 12), READ);
    assert_eq!(
        world.inspector.connections(),
        1,
        "the seat of what was lost is free"
    );
    let fault = world.inspector.fault().unwrap();
    assert!(fault.contains("1 connections were reset"), "{fault}");
}

#[test]
fn the_inspector_goes_out_from_no_port_that_its_client_uses() {
    let (client, server) = (
        "127.0.0.1:20000".parse().unwrap(),
        "127.0.0.1:502".parse().unwrap(),
    );
    let way = Redirect::Fixed(server);
    // All but one in a thousand are used: it looks until it finds one.
    let is_used = |from: SocketAddr| from.port() % 1000 != 77;
    let sockets: Vec<_> = (0..5)
        .map(|_| way.towards(client, server, is_used).unwrap())
        .collect();
    for socket in &sockets {
        let from = socket.local_addr().unwrap();
        assert_eq!((from.ip(), from.port() % 1000), (client.ip(), 77));
    }
    let none = way.towards(client, server, |_| true).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::AddrInUse);
}
