//! What one peer may cost: the disk, the memory and the trail of others are not theirs to use up, and what is not taken is said.

use std::time::Duration;

use penstock_coordinator::allowance::Share;
use penstock_coordinator::api::{ANSWERS_MAX, SESSIONS_EACH_MAX, WATCHES_MAX};
use penstock_coordinator::config::Config;
use penstock_coordinator::store::DiskReserve;
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::v1;
use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::coordinator_message::Message as Down;
use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
use penstock_proto::v1::gateway_message::Message as Up;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::audit::{Trail, acknowledged};
use crate::world::{PATIENCE, Session, World, built, document, people, refused, release};

/// What health says of a gateway's trail.
pub async fn trail_fault(world: &World, gateway: &str) -> Option<String> {
    let listed = world.admin().list_gateways(v1::ListGatewaysRequest {}).await;
    let gateways = listed.unwrap().into_inner().gateways;
    let gateway = gateways.into_iter().find(|found| found.name == gateway)?;
    let fault = gateway.faults.into_iter().find(|fault| fault.code == "trail")?;
    Some(fault.message)
}

pub async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("in time")
}

/// The alarms in the coordinator's own trail that say `words`.
async fn alarms(world: &World, words: &str) -> usize {
    let own = world.trail("coordinator/c1").await;
    own.iter()
        .filter_map(|record| record.event.as_ref())
        .filter(|event| event.severity() == v1::Severity::Alarm && format!("{event:?}").contains(words))
        .count()
}

/// The next acknowledgement says up to where.
async fn next_ack(session: &mut Session) -> u64 {
    match session.next().await.unwrap() {
        Down::AuditAck(ack) => ack.next_sequence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_gateway_that_delivers_without_end_waits_and_says_so_while_others_go_on() {
    let world = World::start_with(|config: &mut Config| {
        config.trail = Share {
            at_once: 64 * 1024,
            per_day: 1 << 20,
        };
    })
    .await;
    let mut flood = world.session("gw-a", v1::PolicyState::default()).await;
    let mut trail = Trail::new(1);
    let text = "x".repeat(16 * 1024);
    for _ in 0..3 {
        flood.send(Up::Audit(trail.block(&text))).await;
    }
    acknowledged(&mut flood, 3).await;
    for _ in 0..3 {
        flood.send(Up::Audit(trail.block(&text))).await;
    }
    // It is not cut off, and hears that its session lives.
    assert!(next_ack(&mut flood).await <= 4);
    let said = until(async || trail_fault(&world, "gw-a").await).await;
    assert!(said.contains("storage.trail_bytes_per_day"), "{said}");
    assert_eq!(
        until(async || Some(alarms(&world, "trail_bytes_per_day").await).filter(|count| *count > 0)).await,
        1
    );
    let mut other = world.session("gw-b", v1::PolicyState::default()).await;
    other.send(Up::Audit(Trail::new(1).block("mine"))).await;
    acknowledged(&mut other, 1).await;
    assert_eq!(trail_fault(&world, "gw-b").await, None);
}

#[tokio::test]
async fn with_a_short_disk_approvals_and_tokens_go_on_and_what_is_refused_says_why() {
    let mut world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    people
        .engineer
        .propose_release(first.request.clone())
        .await
        .unwrap();
    world.config.room = DiskReserve {
        reserve_bytes: u64::MAX,
        disk_part: 0,
    };
    world.restart().await;
    let mut gateway = world.session("gw-a", v1::PolicyState::default()).await;
    gateway.send(Up::Audit(Trail::new(1).block("waits"))).await;
    let said = until(async || trail_fault(&world, "gw-a").await).await;
    assert!(said.contains("storage.reserve_bytes"), "{said}");
    let person = |name: &str| world.certificate(&format!("operator/{name}"));
    let mut bob = world.control(Some(person("bob"))).await.unwrap();
    let mut carol = world.control(Some(person("carol"))).await.unwrap();
    bob.approve_release(first.approval("bob")).await.unwrap();
    let done = carol.approve_release(first.approval("carol")).await.unwrap();
    assert_eq!(done.into_inner().state(), v1::ReleaseState::Current);
    // It reaches a gateway whose trail waits.
    loop {
        match gateway.next().await.unwrap() {
            Down::Offer(_) => break,
            Down::AuditAck(ack) => assert_eq!(ack.next_sequence, 0),
            other => panic!("{other:?}"),
        }
    }
    world.operator("dora", v1::Role::Viewer).await;
    let mut anna = world.control(Some(person("anna"))).await.unwrap();
    let second = built(&document(2, 101), 2, Some(first.digest()), "anna");
    let words = refused(
        anna.propose_release(second.request.clone()).await,
        Reason::StoreFull,
    );
    assert!(words.contains("storage.reserve_bytes"), "{words}");
    // With room again nothing was lost.
    world.config.room = DiskReserve {
        reserve_bytes: 0,
        ..DiskReserve::default()
    };
    drop(gateway);
    world.restart().await;
    let mut gateway = world.session("gw-a", v1::PolicyState::default()).await;
    gateway.send(Up::Audit(Trail::new(1).block("waits"))).await;
    loop {
        match gateway.next().await.unwrap() {
            Down::AuditAck(ack) if ack.next_sequence == 1 => break,
            Down::AuditAck(_) | Down::Offer(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(trail_fault(&world, "gw-a").await, None);
}

#[tokio::test]
async fn proposals_that_ended_leave_their_documents_and_no_plans() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let store = world.running.as_ref().unwrap().store().clone();
    let blobs = async || store.blob_digests().await.unwrap().len();
    // One document, two plans, and what is known beside them.
    until(async || (blobs().await == 4).then_some(())).await;
    for number in 2..5 {
        let next = built(
            &document(2, 100 + number),
            u64::from(number),
            Some(first.digest()),
            "anna",
        );
        people
            .engineer
            .propose_release(next.request.clone())
            .await
            .unwrap();
        people
            .engineer
            .withdraw_release(next.end("another"))
            .await
            .unwrap();
    }
    until(async || (blobs().await == 4 + 3).then_some(())).await;
    let next = built(&document(2, 200), 5, Some(first.digest()), "anna");
    release(&mut people, &next).await;
    // Of the one before, too, the documents are left, and both can be read.
    until(async || (blobs().await == 4 + 4).then_some(())).await;
    for revision in [1, 3, 5] {
        let asked = v1::GetReleaseRequest {
            revision,
            ..Default::default()
        };
        let found = people.engineer.get_release(asked).await.unwrap().into_inner();
        assert_eq!(found.documents.len(), 1, "{revision}");
    }
    let mut gateway = world.session("gw-a", v1::PolicyState::default()).await;
    gateway.offer().await;
}

#[tokio::test]
async fn a_block_with_a_far_epoch_is_refused_with_an_alarm_and_the_trail_goes_on() {
    let world = World::start().await;
    let mut trail = Trail::new(1);
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Audit(trail.block("one"))).await;
    acknowledged(&mut session, 1).await;
    session.send(Up::Audit(Trail::new(u64::MAX).block("far"))).await;
    let status = session.next().await.unwrap_err();
    assert!(explain(&status).is(Reason::AuditFork), "{status:?}");
    assert_eq!(alarms(&world, "epochs ahead").await, 1);
    let mut session = world.session("gw-a", v1::PolicyState::default()).await;
    session.send(Up::Audit(trail.block("two"))).await;
    acknowledged(&mut session, 2).await;
}

/// Asks for a release and reads nothing of the answer.
async fn unread(channel: &Channel) -> Result<Streaming<v1::GetReleaseResponse>, Status> {
    let mut raw = tonic::client::Grpc::new(channel.clone());
    raw.ready().await.unwrap();
    let path = PathAndQuery::from_static("/penstock.v1.Control/GetRelease");
    let codec = tonic_prost::ProstCodec::<v1::GetReleaseRequest, v1::GetReleaseResponse>::default();
    let request = Request::new(v1::GetReleaseRequest::default());
    Ok(raw.server_streaming(request, path, codec).await?.into_inner())
}

#[tokio::test]
async fn who_reads_no_answers_holds_a_few_of_them_and_keeps_nobody_else_out() {
    let world = World::start().await;
    let mut people = people(&world).await;
    // More than any window: only as many bytes go out as the reader has room for.
    let padding = format!("# {}\n", "x".repeat(100)).repeat(30_000);
    let first = built(&format!("{}{padding}", document(2, 100)), 1, None, "anna");
    release(&mut people, &first).await;
    for name in ["vic", "wil"] {
        world.operator(name, v1::Role::Viewer).await;
    }
    let line_of = async |name: &str| {
        let credentials = world.certificate(&format!("operator/{name}"));
        world.channel(world.roots(), Some(credentials)).await.unwrap()
    };
    let (all, each) = ANSWERS_MAX;
    let vic = line_of("vic").await;
    let mut held = Vec::new();
    for _ in 0..each {
        held.push(unread(&vic).await.unwrap());
    }
    refused(unread(&vic).await.map(drop), Reason::TooManyAnswers);
    // The rest of the places is others', and when they are taken, whoever holds the most makes room.
    let wil = line_of("wil").await;
    let mut others = Vec::new();
    for _ in each..all {
        others.push(unread(&wil).await.unwrap());
    }
    let asked = v1::GetReleaseRequest::default();
    let found = people.engineer.get_release(asked).await.unwrap().into_inner();
    assert!(found.documents[0].content.len() > 3_000_000);
    // His answers end with his connection, and so does what was kept for them.
    for mut answer in held {
        let end = tokio::time::timeout(PATIENCE, answer.message()).await.unwrap();
        assert!(end.is_err(), "cut off in the middle");
    }
    drop(until(async || unread(&line_of("vic").await).await.ok()).await);
    // A reader that reads only late loses nothing.
    let reading = others.into_iter().map(|mut answer| {
        tokio::spawn(async move { tokio::time::timeout(PATIENCE, answer.message()).await.unwrap() })
    });
    for read in reading.collect::<Vec<_>>() {
        let message = read.await.unwrap().unwrap().unwrap();
        assert_eq!(message.documents, found.documents);
    }
}

#[tokio::test]
async fn a_gateway_that_reads_none_of_its_sessions_holds_a_few_of_them_and_loses_its_connection() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let nothing = v1::PolicyState::default;
    let mut other = world.session("gw-b", nothing()).await;
    let own = world.narrow_channel("gw-a").await;
    // Of a session that it reads, also to the middle, and goes, nothing is left.
    for _ in 0..3 * SESSIONS_EACH_MAX {
        world.session_over(own.clone(), nothing()).await;
    }
    let mut unread = Vec::new();
    for _ in 0..SESSIONS_EACH_MAX {
        unread.push(world.session_over(own.clone(), nothing()).await);
        // What it is offered waits for it; a session that is replaced before has nothing to hold.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // The newest is the one that counts, and it stands; what the others were offered waits to be read.
    let mut newest = unread.pop().unwrap();
    assert!(!newest.offer().await.plan.is_empty());
    newest.silence().await;
    unread.push(newest);
    // One more costs the connection of the oldest, which is its own, too.
    let beyond = tokio_stream::pending::<v1::GatewayMessage>();
    let _beyond = GatewayLinkClient::new(own).session(beyond).await;
    for session in &mut unread {
        while session.next().await.is_ok() {}
    }
    // Nobody else notices, and the gateway itself comes back over another connection.
    other.offer().await;
    other.silence().await;
    let mut own = world.session("gw-a", nothing()).await;
    own.offer().await;
    own.silence().await;
}

#[tokio::test]
async fn a_gateway_that_is_refused_and_goes_at_once_leaves_its_alarm() {
    const GATEWAYS: usize = 20;
    let world = World::start().await;
    let mut gone = Vec::new();
    for n in 0..GATEWAYS {
        let session = world
            .session(&format!("gw-{n}"), v1::PolicyState::default())
            .await;
        let unreadable = v1::AuditBlock {
            epoch: 1,
            sequence: 0,
            previous_digest: vec![0; 32].into(),
            body: vec![0xff; 8].into(),
        };
        session.send(Up::Audit(unreadable)).await;
        let Session { up, down, .. } = session;
        drop(up);
        gone.push(down);
    }
    until(async || (alarms(&world, "cannot be read").await == GATEWAYS).then_some(())).await;
}

#[tokio::test]
async fn one_operator_has_a_bounded_number_of_watches_and_all_watchers_get_the_same() {
    let world = World::start().await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let watch = |once| v1::WatchHealthRequest {
        once,
        ..Default::default()
    };
    // What is judged comes a moment after the release.
    until(async || {
        let mut once = people
            .engineer
            .clone()
            .watch_health(watch(true))
            .await
            .unwrap()
            .into_inner();
        let health = once.message().await.unwrap().unwrap();
        (health.zones.len() == 3).then_some(())
    })
    .await;
    let mut vic = world.operator("vic", v1::Role::Viewer).await;
    let mut open = Vec::new();
    for _ in 0..WATCHES_MAX.1 {
        open.push(vic.watch_health(watch(false)).await.unwrap().into_inner());
    }
    refused(vic.watch_health(watch(false)).await, Reason::TooManyAnswers);
    let once = people.engineer.watch_health(watch(true)).await.unwrap();
    let mut once = once.into_inner();
    let now = once.message().await.unwrap().unwrap();
    assert_eq!(now.zones.len(), 3);
    assert_eq!(once.message().await.unwrap(), None);
    let mut seen = Vec::new();
    for watched in &mut open {
        seen.push(watched.message().await.unwrap().unwrap());
    }
    assert!(seen.iter().all(|health| *health == seen[0]));
    // Each of them goes on.
    let _gateway = world.session("gw-a", v1::PolicyState::default()).await;
    for watched in &mut open {
        let next = tokio::time::timeout(PATIENCE, watched.message()).await.unwrap();
        assert_eq!(next.unwrap().unwrap().zones.len(), 3);
    }
    drop(open.pop());
    until(async || vic.watch_health(watch(true)).await.ok()).await;
}

#[tokio::test]
async fn a_gateway_renews_a_bounded_number_of_times_and_fills_no_trail_with_it() {
    use penstock_coordinator::api::RENEWALS;
    let world = World::start().await;
    let own = world.certificate("gateway/gw-a");
    let channel = world.channel(world.roots(), Some(own)).await.unwrap();
    let mut link = GatewayLinkClient::new(channel);
    let request = world.renewal("gateway/gw-a");
    for _ in 0..RENEWALS.at_once {
        link.renew(request.clone()).await.unwrap();
    }
    for _ in 0..100 {
        refused(link.renew(request.clone()).await, Reason::TooManyAttempts);
    }
    let own = world.trail("coordinator/c1").await;
    let of_gateway = own
        .iter()
        .filter(|record| format!("{record:?}").contains("gateway/gw-a"))
        .count();
    assert!((25..=58).contains(&of_gateway), "{of_gateway}");
    // Another one renews.
    let other = world.certificate("gateway/gw-b");
    let channel = world.channel(world.roots(), Some(other)).await.unwrap();
    let request = world.renewal("gateway/gw-b");
    GatewayLinkClient::new(channel).renew(request).await.unwrap();
}

/// A call whose request begins and never ends.
async fn unfinished(channel: Channel, path: &'static str) -> Result<(), Status> {
    let mut raw = tonic::client::Grpc::new(channel);
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::RenewRequest, v1::EnrolResponse>::default();
    let never = Request::new(tokio_stream::pending());
    let path = PathAndQuery::from_static(path);
    raw.client_streaming(never, path, codec).await.map(drop)
}

#[tokio::test]
async fn a_thief_or_a_stranger_with_calls_that_are_never_finished_keeps_no_gateway_out() {
    let world = World::start().await;
    for (thief, path) in [
        (true, "/penstock.v1.GatewayLink/Renew"),
        (false, "/penstock.v1.Enrolment/Enrol"),
    ] {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let stolen = thief.then(|| world.certificate("gateway/gw-a"));
            let line = world.channel(world.roots(), stolen).await.unwrap();
            for _ in 0..64 {
                calls.spawn(unfinished(line.clone(), path));
            }
        }
        let all_taken = tokio::time::timeout(PATIENCE, calls.join_next()).await.unwrap();
        refused(all_taken.unwrap().unwrap(), Reason::TooManyActions);
        if thief {
            world.session("gw-a", v1::PolicyState::default()).await;
        } else {
            let gateway = v1::create_token_request::Subject::Gateway("gw-b".to_owned());
            let secret = world.token(gateway, v1::Role::Unspecified).await;
            world.enrol("gw-b", &secret).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_in_its_handshake_is_in_the_trail_with_where_it_came_from_and_why() {
    let world = World::start().await;
    let address = format!("{}:{}", world.address.host(), world.address.port());
    for _ in 0..3 {
        let mut stranger = tokio::net::TcpStream::connect(&address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
    }
    let words = until(async || {
        let trail = world.trail("coordinator/c1").await;
        trail
            .iter()
            .find_map(|record| match &record.event.as_ref()?.kind {
                Some(Kind::Identity(event)) if event.subject == "connection" && event.step == "refused" => {
                    Some((event.address.clone(), event.message.clone()))
                }
                _ => None,
            })
    });
    let (from, why) = words.await;
    assert_eq!(from, "127.0.0.1");
    assert!(why.contains("before anybody was known"), "{why}");
}
