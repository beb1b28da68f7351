//! Alarms and health where the plant looks: at a broker that others wrote (mosquitto, by TLS), read by its own clients and by a Sparkplug host that
//! others wrote (pysparkplug); and the same by the real `penstock`.

mod broker;

use std::time::Duration;

use penstock_coordinator::scada::settings::ScadaFile;
use penstock_proto::audit::{GENESIS, block_digest};
use penstock_proto::refusal::Reason;
use penstock_proto::v1;
use penstock_proto::v1::gateway_message::Message as Up;
use prost::Message as _;
use serde_json::{Value, json};

use self::broker::{Broker, Host, Reader};
use crate::audit::acknowledged;
use crate::person::Person;
use crate::world::{Program, World, built, document, mark, people, refused, release};

/// Delays that nobody waits for.
fn at_once(config: &mut penstock_coordinator::config::Config) {
    config.alarms.delays.on = Duration::ZERO;
    config.alarms.delays.off = Duration::ZERO;
    // Longer than a test takes.
    config.sessions.health_interval = Duration::from_secs(60);
}

fn settings(broker: &Broker, change: impl FnOnce(&mut ScadaFile)) -> ScadaFile {
    let [roots, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| broker.file(name));
    let mut file = ScadaFile {
        broker: format!("mqtts://localhost:{}", broker.port),
        roots,
        certificate,
        key,
        ..ScadaFile::default()
    };
    change(&mut file);
    file
}

/// What a gateway reports: whether a must-flow of its control zone is silent.
fn report(policy: v1::PolicyState, is_silent: bool) -> Up {
    let fault = v1::Fault {
        zones: vec!["control".to_owned()],
        flows: vec!["watch/poll".to_owned()],
        ..v1::Fault::new("flow-silent", "a must-flow is silent".to_owned())
    };
    Up::Health(v1::HealthReport {
        policy: Some(policy),
        faults: is_silent.then_some(fault).into_iter().collect(),
        ..v1::HealthReport::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scada_reads_alarms_acknowledges_by_topic_and_gets_the_newest_state_after_its_broker_was_away() {
    let mut broker = Broker::start();
    let topic = "penstock/riverside/alarm/control/must-flow";
    let ack = format!("{topic}/ack");
    // What is kept at the broker under the topic of acknowledgements was said at another time.
    broker.publish(&ack, r#"{"user": "ghost"}"#, &["-r"]);
    let world = World::start_with(|config| {
        at_once(config);
        config.scada = settings(&broker, |file| file.acknowledge = true).check().unwrap();
    })
    .await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let policy = v1::PolicyState {
        effective: Some(mark(&first, "gw-a")),
        ..v1::PolicyState::default()
    };
    let a = world.session("gw-a", policy.clone()).await;
    a.send(report(policy.clone(), true)).await;

    let mut reader = Reader::new(&broker, &["penstock/riverside/#"]);
    let raised = reader
        .until(topic, |said| said["state"] == "unacknowledged")
        .await;
    assert_eq!(raised["priority"], "medium");
    assert_eq!(raised["gateways"], json!(["gw-a"]));
    assert!(
        raised["message"].as_str().unwrap().contains("watch/poll"),
        "{raised}"
    );
    reader
        .until("penstock/riverside/coordinator/c1/online", |said| *said == true)
        .await;
    let health = reader
        .until("penstock/riverside/zone/control/health", |said| {
            said["state"] == "degraded"
        })
        .await;
    assert_eq!(health["revision"], 1);
    reader.validate();

    broker.publish("penstock/riverside/alarm/safety/stale/ack", "{", &[]);
    broker.publish(&ack, r#"{"user": "rosa", "reason": "seen at the panel"}"#, &[]);
    let seen = reader.until(topic, |said| said["state"] == "acknowledged").await;
    assert_eq!((&seen["by"], &seen["by_topic"]), (&json!("rosa"), &json!(true)));
    let trail = world.trail("coordinator/c1").await;
    let steps = trail
        .into_iter()
        .filter_map(|record| match record.event.unwrap().kind {
            Some(v1::audit_event::Kind::Alarm(event))
                if event.cause == "must-flow" && event.zone == "control" =>
            {
                Some((event.step, event.by, event.by_topic, event.reason))
            }
            _ => None,
        });
    assert_eq!(
        steps.collect::<Vec<_>>(),
        [
            ("raised".to_owned(), String::new(), false, String::new()),
            (
                "acknowledged".to_owned(),
                "rosa".to_owned(),
                true,
                "seen at the panel".to_owned()
            ),
        ]
    );

    // The broker is gone with all that it kept, and meanwhile the alarm is over.
    drop(reader);
    broker.stop();
    a.send(report(policy, false)).await;
    let mut control = world.admin();
    let mut alarms = control
        .watch_alarms(v1::WatchAlarmsRequest::default())
        .await
        .unwrap()
        .into_inner();
    while let Some(now) = alarms.message().await.unwrap() {
        if now.alarms.iter().all(|alarm| alarm.cause != "must-flow") {
            break;
        }
    }
    broker.start_again();
    let mut reader = Reader::new(&broker, &["penstock/riverside/#"]);
    let newest = reader.until(topic, |_| true).await;
    assert_eq!(
        newest["state"], "normal",
        "the newest state, and no older one before it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_is_offline_by_its_will_and_acknowledgements_survive() {
    let broker = Broker::start();
    let mut world = World::start_with(at_once).await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let file = Program::takes_over(&mut world, "127.0.0.1").await;
    let scada = settings(&broker, |_| ());
    let text = std::fs::read_to_string(&file).unwrap();
    let more = format!(
        "[alarms]\non_seconds = 0\ndark_minutes = 0\n[scada]\nbroker = {:?}\nroots = {:?}\ncertificate = {:?}\nkey = {:?}\n",
        scada.broker, scada.roots, scada.certificate, scada.key
    );
    std::fs::write(&file, format!("{text}{more}")).unwrap();
    let program = Program::start(&file);
    program.serves(&world).await;
    let mut reader = Reader::new(&broker, &["penstock/riverside/#"]);
    let online = "penstock/riverside/coordinator/c1/online";
    reader.until(online, |said| *said == true).await;
    // No gateway is there, and no zone may be dark.
    let topic = "penstock/riverside/alarm/safety/stale";
    reader
        .until(topic, |said| said["state"] == "unacknowledged")
        .await;
    let engineer = world.certificate("operator/anna");
    let mut control = world.control(Some(engineer.clone())).await.unwrap();
    let ack = v1::ChangeAlarmRequest {
        zone: "safety".to_owned(),
        cause: "stale".to_owned(),
        change: Some(v1::change_alarm_request::Change::Acknowledge(true)),
        reason: "the site is without power".to_owned(),
    };
    let done = control.change_alarm(ack).await.unwrap().into_inner();
    assert_eq!(done.state, "acknowledged");
    program.kill();
    reader.until(online, |said| *said == false).await;
    let program = Program::start(&file);
    program.serves(&world).await;
    reader.until(online, |said| *said == true).await;
    let mut control = world.control(Some(engineer)).await.unwrap();
    let asked = v1::WatchAlarmsRequest { once: true };
    let mut alarms = control.watch_alarms(asked).await.unwrap().into_inner();
    let alarms = alarms.message().await.unwrap().unwrap().alarms;
    let held = alarms
        .into_iter()
        .find(|alarm| alarm.zone == "safety" && alarm.cause == "stale")
        .unwrap();
    assert_eq!((held.state.as_str(), held.by.as_str()), ("acknowledged", "anna"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparkplug_host_that_others_wrote_sees_births_data_rebirth_and_death() {
    let broker = Broker::start();
    let mut world = World::start_with(|config| {
        at_once(config);
        let file = settings(&broker, |file| file.sparkplug_group = "riverside".to_owned());
        config.scada = file.check().unwrap();
    })
    .await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let mut host = Host::start(&broker, "riverside", "penstock");
    let policy = v1::PolicyState {
        effective: Some(mark(&first, "gw-a")),
        ..v1::PolicyState::default()
    };
    let a = world.session("gw-a", policy.clone()).await;
    // The host asks for a birth as soon as it is there.
    let birth = host
        .until("NBIRTH", |birth| {
            !birth["metrics"]["Zones/control/State"].is_null()
        })
        .await;
    assert_eq!(
        (&birth["seq"], &birth["metrics"]["Node Control/Rebirth"]),
        (&json!(0), &json!(false))
    );
    a.send(report(policy, true)).await;
    let metric = "Alarms/control/must-flow/State";
    let is_raised = |message: &Value| message["metrics"][metric] == "unacknowledged";
    let data = host.until("NDATA", is_raised).await;
    assert_eq!(
        data["metrics"]["Alarms/control/must-flow/Unacknowledged"],
        json!(true)
    );
    world.running.take().unwrap().stop().await;
    let death = host.until("NDEATH", |_| true).await;
    assert_eq!(death["bd_seq"], birth["metrics"]["bdSeq"]);
}

/// The first block of a trail, with this event.
fn first_block(severity: v1::Severity, kind: v1::audit_event::Kind) -> v1::AuditBlock {
    let body = v1::AuditBlockBody {
        events: vec![v1::AuditEvent {
            time_ms: crate::world::now_ms(),
            severity: severity.into(),
            revision: 1,
            kind: Some(kind),
        }],
    };
    let body = body.encode_to_vec();
    assert_ne!(block_digest(&GENESIS, 1, 0, &body), GENESIS);
    v1::AuditBlock {
        epoch: 1,
        sequence: 0,
        previous_digest: GENESIS.to_vec().into(),
        body: body.into(),
    }
}

/// A block in which a gateway says that it refused a write into the safety zone.
fn refused_write() -> v1::AuditBlock {
    let event = v1::OperationEvent {
        subject: "operation".to_owned(),
        decision: v1::Decision::Deny.into(),
        operation: "write-single-register 40 of unit 1".to_owned(),
        reason: "no rule permits the function".to_owned(),
        protocol: "modbus-tcp".to_owned(),
        client: "10.20.1.21".to_owned(),
        client_name: "hmi".to_owned(),
        server: "10.20.9.7".to_owned(),
        port: 502,
        count: 1,
        ..v1::OperationEvent::default()
    };
    first_block(v1::Severity::Warning, v1::audit_event::Kind::Operation(event))
}

/// The faults of trails that the coordinator holds of these gateways.
async fn trail_faults(world: &World, names: &[&str]) -> Vec<String> {
    let listed = world.admin().list_gateways(v1::ListGatewaysRequest {}).await;
    let listed = listed.unwrap().into_inner().gateways.into_iter();
    let faults = listed
        .filter(|gateway| names.contains(&gateway.name.as_str()))
        .flat_map(|gateway| gateway.faults);
    let of_trails = faults.filter(|fault| fault.code == "trail");
    of_trails.map(|fault| fault.message).collect()
}

/// Waits until the alarm `trail` of each of these zones is in this state.
async fn trails_are(world: &World, zones: &[&str], state: &str) {
    let asked = v1::WatchAlarmsRequest::default();
    let mut alarms = world.admin().watch_alarms(asked).await.unwrap().into_inner();
    loop {
        let now = alarms.message().await.unwrap().unwrap().alarms;
        let is = |zone: &&str| {
            now.iter()
                .any(|alarm| alarm.zone == **zone && alarm.cause == "trail" && alarm.state == state)
        };
        if zones.iter().all(is) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_set_back_counts_over_restarts_until_an_engineer_acknowledges_it_also_where_the_gateway_guards_no_zone()
 {
    let mut world = World::start_with(at_once).await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let gateways = ["gw-b", "gw-spare"];
    for gateway in gateways {
        let mut session = world.session(gateway, v1::PolicyState::default()).await;
        let event = v1::AgentEvent {
            step: "spool-set-back".to_owned(),
            message: "the kernel holds 1/9, and the trail ends at 1/0".to_owned(),
            ..v1::AgentEvent::default()
        };
        let kind = v1::audit_event::Kind::Agent(event);
        session
            .send(Up::Audit(first_block(v1::Severity::Alarm, kind)))
            .await;
        acknowledged(&mut session, 1).await;
        // The gateway itself reports no fault, or no longer.
    }
    trails_are(&world, &["safety", ""], "unacknowledged").await;
    world.restart().await;
    let faults = trail_faults(&world, &gateways).await;
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults.iter().all(|fault| fault.contains("spool-set-back")),
        "{faults:?}"
    );

    let eva = Person::new(&world, "eva", "desk", v1::Role::Engineer).await;
    for (zone, left) in [("safety", 1), ("_plant", 0)] {
        trails_are(&world, &[zone.trim_start_matches("_plant")], "unacknowledged").await;
        let seen = eva
            .done(&[
                "alarms",
                "ack",
                zone,
                "trail",
                "--reason",
                "the disk was restored by us",
            ])
            .await;
        assert_eq!(
            (&seen["state"], &seen["zone"]),
            (&json!("acknowledged"), &json!(zone))
        );
        let ended = async {
            while trail_faults(&world, &gateways).await.len() > left {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .expect("an acknowledged fault ends");
    }
    world.restart().await;
    assert_eq!(trail_faults(&world, &gateways).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_refused_into_a_safety_zone_is_an_alarm_that_people_acknowledge_and_nobody_shelves() {
    let mut world = World::start_with(at_once).await;
    let mut people = people(&world).await;
    let first = built(&document(2, 100), 1, None, "anna");
    release(&mut people, &first).await;
    let policy = v1::PolicyState {
        effective: Some(mark(&first, "gw-b")),
        ..v1::PolicyState::default()
    };
    let mut b = world.session("gw-b", policy).await;
    b.send(Up::Audit(refused_write())).await;
    acknowledged(&mut b, 1).await;
    let mut control = world.admin();
    let mut alarms = control
        .watch_alarms(v1::WatchAlarmsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let alarm = loop {
        let now = alarms.message().await.unwrap().unwrap();
        if let Some(alarm) = now
            .alarms
            .into_iter()
            .find(|alarm| alarm.cause == "refused-write")
        {
            break alarm;
        }
    };
    assert_eq!((alarm.zone.as_str(), alarm.priority.as_str()), ("safety", "high"));
    assert!(alarm.message.contains("by hmi (10.20.1.21)"), "{}", alarm.message);

    let eva = Person::new(&world, "eva", "desk", v1::Role::Engineer).await;
    let viewer = Person::new(&world, "victor", "wall", v1::Role::Viewer).await;
    let page = viewer.run(&["alarms"]).await;
    assert_eq!(page.status.code(), Some(1), "something asks for somebody");
    let which = [
        "alarms",
        "shelve",
        "safety",
        "refused-write",
        "--minutes",
        "60",
        "--reason",
        "loud",
    ];
    let shelved = eva.fails(&which).await;
    assert_eq!(shelved, Reason::NobodyConfirms.as_str());
    let ack = [
        "alarms",
        "ack",
        "safety",
        "refused-write",
        "--reason",
        "it is Tom's laptop",
    ];
    assert_eq!(viewer.fails(&ack).await, Reason::WrongRole.as_str());
    let seen = eva.done(&ack).await;
    assert_eq!(
        (&seen["state"], &seen["by"]),
        (&json!("acknowledged"), &json!("eva"))
    );
    // It stands for an hour after it happened, also where the coordinator was restarted meanwhile, and whoever has seen it is not called again.
    world.restart().await;
    let mut control = world.admin();
    let mut alarms = control
        .watch_alarms(v1::WatchAlarmsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let again = v1::ChangeAlarmRequest {
        zone: "safety".to_owned(),
        cause: "refused-write".to_owned(),
        change: Some(v1::change_alarm_request::Change::Unshelve(true)),
        reason: String::new(),
    };
    refused(world.admin().change_alarm(again).await, Reason::WrongRole);
    // It was looked again: the gateway is not back, which is suppressed by design for now.
    loop {
        let now = alarms.message().await.unwrap().unwrap().alarms;
        let find = |cause: &str| {
            now.iter()
                .find(|alarm| alarm.zone == "safety" && alarm.cause == cause)
        };
        let held = find("refused-write").unwrap();
        assert_eq!((held.state.as_str(), held.by.as_str()), ("acknowledged", "eva"));
        if find("stale").is_some_and(|stale| stale.state == "suppressed") {
            break;
        }
    }
}
