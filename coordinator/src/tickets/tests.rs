#![allow(clippy::unwrap_used)]

use std::path::Path;

use penstock_policy::ids::CoordinatorId;

use super::*;
use crate::store::BlockFilter;

fn tickets(dir: &Path) -> Tickets {
    let store = Store::open(&dir.join("s.db")).unwrap();
    let journal = Journal::new(store.clone(), &CoordinatorId::new("c1").unwrap());
    Tickets::new(store, journal)
}

fn holder(last: u8) -> Holder {
    Holder {
        gateway: GatewayId::new("gw-1").unwrap(),
        key: Digest::of(b"key"),
        address: IpAddr::from([10, 0, 0, last]),
    }
}

async fn events(tickets: &Tickets) -> usize {
    let all = tickets.0.store.blocks(BlockFilter::default(), 100).await;
    all.unwrap().len()
}

#[tokio::test]
async fn a_ticket_is_known_after_a_restart_and_an_earlier_one_is_an_alarm_that_stays_until_it_is_lifted() {
    let dir = tempfile::tempdir().unwrap();
    let (gateway, thief) = (holder(1), holder(2));
    let first = {
        let tickets = tickets(dir.path());
        let first = tickets.greet(&gateway, Some(&Bytes::new())).await;
        assert!(first.is_known && first.twin.is_none());
        tickets.held(&gateway, &first.ticket).await;
        first.ticket
    };
    let (second, before) = {
        let tickets = tickets(dir.path());
        let second = tickets.greet(&gateway, Some(&first)).await;
        assert!(second.twin.is_none() && second.ticket != first && !second.ticket.is_empty());
        assert_eq!(events(&tickets).await, 0, "nothing is said of one user");
        tickets.held(&gateway, &second.ticket).await;
        let alarm = tickets.greet(&thief, Some(&first)).await;
        let twin = alarm.twin.unwrap();
        assert_eq!(
            (&*twin.other.address, &*twin.noticed.address),
            ("10.0.0.1", "10.0.0.2")
        );
        assert!(alarm.ticket.is_empty());
        assert_eq!(events(&tickets).await, 1);
        (second.ticket, twin)
    };
    let tickets = tickets(dir.path());
    // Both hear it, once it is in the trail.
    for (who, shown) in [(&gateway, &second), (&thief, &first)] {
        let alarm = tickets.greet(who, Some(shown)).await;
        assert_eq!(alarm.twin, Some(before.clone()));
    }
    assert_eq!(events(&tickets).await, 1);
    let lifted = tickets.lift(
        Change::silent(Silent::Prepared),
        &gateway.gateway,
        Some(gateway.key),
    );
    let change = lifted.await.unwrap().unwrap();
    tickets.0.store.apply(change).await.unwrap();
    assert_eq!(tickets.greet(&gateway, Some(&second)).await.twin, None);
}

#[tokio::test]
async fn a_gateway_before_tickets_gets_none_and_one_that_had_one_may_not_leave_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let tickets = tickets(dir.path());
    let before = tickets.greet(&holder(1), None).await;
    assert_eq!(before, Greeting::new());
    let given = tickets.greet(&holder(1), Some(&Bytes::new())).await.ticket;
    tickets.held(&holder(1), &given).await;
    let twin = tickets.greet(&holder(1), None).await.twin.unwrap();
    assert_eq!(twin.why, Mismatch::Missing);
}
