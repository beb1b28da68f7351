//! Keys that no longer count: of devices and of their brokers, at the next handshake and on connections that stand.

use penstock_proto::peer::Epoch;
use penstock_proto::withdrawn::Withdrawn;
use tokio::sync::watch;

use super::*;

/// The list as the agent has it.
struct Known(watch::Sender<Arc<Withdrawn>>);

impl Known {
    /// A plant whose gateway judges by it.
    async fn works() -> (Self, Works) {
        let (list, view) = watch::channel(Arc::default());
        let works = Works::without_identity().await;
        let own = works.ca.gateway_knowing(2099, view.into());
        works.world.inspector.identify(Some(own));
        (Self(list), works)
    }

    /// The subject counts from this life on only, for whoever is met from now on.
    fn withdraw(&self, subject: &str, from: u32) {
        self.0.send_modify(|list| {
            Arc::make_mut(list).withdraw(&subject.parse().unwrap(), Epoch(from));
        });
    }

    /// The inspector hears of it.
    async fn heed(&self, works: &Works) {
        let list = self.0.borrow().clone();
        works.world.inspector.heed(list).await;
    }
}

/// What is left for a broker before its connection ends.
async fn last_of(mut served: server::TlsStream<tokio::net::TcpStream>) -> Vec<u8> {
    let mut last = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, served.read_to_end(&mut last))
        .await
        .unwrap();
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_key_is_withdrawn_is_cut_at_once_and_refused_and_everybody_else_goes_on() {
    let (known, mut works) = Known::works().await;
    let old = works.ca.issue_life("device/hmi", 1);
    let (mut old_client, old_served) = works.pair_of(old.clone()).await;
    let (mut client, mut served) = works.pair_of(works.ca.issue_life("device/hmi", 2)).await;
    // Of somebody else: nobody is cut.
    known.withdraw("device/historian", 9);
    known.heed(&works).await;
    old_client.write_all(ALLOWED).await.unwrap();
    let mut old_served = old_served;
    assert_eq!(take(&mut old_served, ALLOWED.len()).await, ALLOWED);

    known.withdraw("device/hmi", 2);
    known.heed(&works).await;
    assert!(old_client.read_u8().await.is_err());
    assert_eq!(
        last_of(old_served).await,
        [0xe0, 0],
        "the broker hears a DISCONNECT, and no will is published"
    );
    works.world.until("the client's key was withdrawn").await;
    client.write_all(ALLOWED).await.unwrap();
    assert_eq!(take(&mut served, ALLOWED.len()).await, ALLOWED);
    let told = works.refuses(Some(old), "was withdrawn").await;
    assert_eq!(told.decision, Some(Decision::Deny), "{}", told.text);
    assert!(
        told.text.contains("only life 2 and later ones count"),
        "{}",
        told.text
    );
    works.pair_of(works.ca.issue_life("device/hmi", 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_key_is_withdrawn_is_left_at_once_and_not_met_again() {
    let (known, mut works) = Known::works().await;
    works.broker = works.ca.issue_life("device/plc", 1);
    let (mut client, served) = works.pair().await;
    known.withdraw("device/plc", 2);
    known.heed(&works).await;
    assert!(client.read_u8().await.is_err());
    last_of(served).await;
    works.world.until("the server's key was withdrawn").await;
    let (client, served) = tokio::join!(works.dial(Some(works.device("hmi"))), works.serve());
    if let Ok(mut client) = client {
        client.read_u8().await.unwrap_err();
    }
    if let Ok(mut served) = served {
        served.read_u8().await.unwrap_err();
    }
    works
        .world
        .until("the certificate of spiffe://works/device/plc was withdrawn")
        .await;
    works.broker = works.ca.issue_life("device/plc", 2);
    works.pair().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_comes_between_the_handshakes_of_a_connection_ends_it_before_a_byte_passes() {
    let (known, mut works) = Known::works().await;
    let mut client = works
        .dial(Some(works.ca.issue_life("device/hmi", 1)))
        .await
        .unwrap();
    client.write_all(CONNECT).await.unwrap();
    // Whoever is not judged good gets no further than the gateway.
    let reached = works.reached().await.unwrap();
    known.withdraw("device/hmi", 2);
    let mut served = works.serve_on(reached).await.unwrap();
    let mut heard = Vec::new();
    let _ = served.read_to_end(&mut heard).await;
    assert!(!heard.windows(4).any(|some| some == b"MQTT"), "{heard:?}");
    assert!(client.read_u8().await.is_err());
    works.world.until("the client's key was withdrawn").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn between_zones_that_observe_no_list_cuts_anybody_and_enforcing_does() {
    let (known, works) = Known::works().await;
    let (mut client, mut served) = works.pair().await;
    works
        .put(|plan| plan.interfaces[0].observing = Enforcement::Observe.into())
        .await;
    known.withdraw("device/hmi", 2);
    known.heed(&works).await;
    client.write_all(ALLOWED).await.unwrap();
    assert_eq!(take(&mut served, ALLOWED.len()).await, ALLOWED);
    works.put(|_| ()).await;
    assert!(client.read_u8().await.is_err());
    last_of(served).await;
}
