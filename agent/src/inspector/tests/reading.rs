//! One connection's turn at a thread ends, whatever it sends, and nothing of it is forgotten.

use std::rc::Rc;
use std::task::Poll;

use super::super::leg::Leg;
use super::super::seats::Seats;
use super::super::session::{Inspection, READ_BYTES, Scratch, Session};
use super::super::tuple::Tuple;
use super::*;

/// A leg, and what stands at its other end.
fn leg() -> (Leg, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let own = listener.accept().unwrap().0;
    for end in [&own, &other] {
        socket2::SockRef::from(end).set_out_of_band_inline(true).unwrap();
        socket2::SockRef::from(end).set_recv_buffer_size(4 << 20).unwrap();
        socket2::SockRef::from(end).set_send_buffer_size(4 << 20).unwrap();
        end.set_nonblocking(true).unwrap();
    }
    (Leg::plain(tokio::net::TcpStream::from_std(own).unwrap()), other)
}

/// A connection of which nothing is read, between these two ends.
fn passing() -> (Session, TcpStream, TcpStream) {
    let ((client_leg, client), (server_leg, server)) = (leg(), leg());
    let at: SocketAddr = "127.0.0.1:502".parse().unwrap();
    let tuple = Tuple {
        client: at.ip(),
        server: at,
        device: None,
        role: None,
    };
    let claim = super::super::lookup::SeatClaim::default();
    let (seat, _) = Seats::new(SeatLimits::default())
        .take_or_pass(at, claim, now())
        .unwrap();
    let legs = (client_leg, server_leg);
    let session = Session::new((at, tuple), legs, Inspection::Passing, Rc::default(), seat);
    (session, client, server)
}

/// Else each turn costs it an interrupt that connections which are read are spared.
#[tokio::test]
async fn a_thread_stays_awake_for_quick_turns_of_a_connection_that_passes_unread_too() {
    let (mut session, client, server) = passing();
    let mut scratch = Scratch::default();
    let awaited = async {
        while !session.is_awaited(&scratch) {
            for (mut from, mut to) in [(&client, &server), (&server, &client)] {
                from.write_all(b"x").unwrap();
                std::future::poll_fn(|cx| {
                    assert!(session.poll(cx, &mut scratch).is_pending());
                    match to.read(&mut [0]) {
                        Ok(1) => Poll::Ready(()),
                        _ => Poll::Pending,
                    }
                })
                .await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, awaited).await.unwrap();
}

#[tokio::test]
async fn what_comes_without_end_lets_other_connections_have_their_turn_and_is_taken_up_again() {
    let (mut session, mut client, mut server) = passing();
    // A read ends before urgent data: no wake-up announces the bytes behind it.
    client.write_all(b"before").unwrap();
    rustix::net::send(&client, b"!", rustix::net::SendFlags::OOB).unwrap();
    let more: Vec<u8> = (0..=u8::MAX).cycle().take(64 * READ_BYTES).collect();
    let mut sent = 0;
    while sent < more.len()
        && let Ok(count) = client.write(&more[sent..])
    {
        sent += count;
    }
    assert!(sent > 32 * READ_BYTES, "{sent} is too little to tell");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (mut scratch, mut taken) = (Scratch::default(), Vec::new());
    let mut turns = 0;
    tokio::time::timeout(
        PATIENCE,
        std::future::poll_fn(|cx| {
            turns += 1;
            assert!(session.poll(cx, &mut scratch).is_pending());
            let before = taken.len();
            let _ = server.read_to_end(&mut taken);
            assert!(taken.len() - before <= 40 * READ_BYTES, "one turn has an end");
            match taken.len() < 7 + sent {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        }),
    )
    .await
    .unwrap();
    assert!(turns > 1);
    assert_eq!(&taken[..7], b"before!");
    assert_eq!(&taken[7..], &more[..sent]);
}
