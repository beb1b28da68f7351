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

#[tokio::test]
async fn what_comes_without_end_lets_other_connections_have_their_turn_and_is_taken_up_again() {
    let ((client_leg, mut client), (server_leg, mut server)) = (leg(), leg());
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
    let mut session = Session::new((at, tuple), legs, Inspection::Passing, Rc::default(), seat);
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
