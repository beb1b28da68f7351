//! How many MQTT publications a second come through.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use penstock::lab::Daemon;
use penstock_policy::model::{MqttOperation, NumberRange, Operations};

use super::gateway::{self, Inspecting};
use super::{Plant, SERVER, median};

const ROUNDS: usize = 5;
/// Publications of one round.
const MESSAGES: usize = 100_000;
/// Rules, or lines of the broker's own list; the last one permits what is published.
const RULES: usize = 1_000;
const PORT: u16 = 1883;
const TOPIC: &str = "line4/press7/temperature";

/// The topic filters of `count` rules, of which the last covers [`TOPIC`].
fn filters(count: usize) -> impl Iterator<Item = String> {
    (1..count)
        .map(|n| format!("line{}/press{}/pressure", n % 40, n))
        .chain([TOPIC.to_owned()])
}

fn rules(count: usize) -> Operations {
    let publish = |topic: String| MqttOperation::Publish {
        topics: vec![topic],
        qos: NumberRange { first: 0, last: 1 },
        retain: false,
    };
    Operations::Mqtt(filters(count).map(publish).collect())
}

/// A broker, with a list of [`RULES`] lines of its own or without.
fn broker(plant: &Plant, listed: bool) -> Daemon {
    let folder = std::env::temp_dir();
    let mut text = format!(
        "listener {PORT} {SERVER}\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
         max_inflight_messages 0\nlog_type error\n"
    );
    if listed {
        let list = folder.join("penstock-bench.acl");
        let mut lines = String::new();
        for filter in filters(RULES) {
            writeln!(lines, "topic readwrite {filter}").unwrap();
        }
        std::fs::write(&list, lines).unwrap();
        writeln!(text, "acl_file {}", list.display()).unwrap();
    }
    let configuration = folder.join("penstock-bench-mosquitto.conf");
    std::fs::write(&configuration, text).unwrap();
    let arguments = ["-c", configuration.to_str().unwrap()];
    let broker = plant.server.spawn("mosquitto", "mosquitto", &arguments).unwrap();
    let listens = format!("{SERVER}:{PORT}");
    plant
        .server
        .wait_for_tcp(&listens, Duration::from_secs(5))
        .unwrap();
    broker
}

/// Publications a second at QoS 1, from the first one sent until the broker has acknowledged the last.
fn rate(plant: &Plant, messages: &Path) -> f64 {
    let began = Instant::now();
    let status = plant
        .client
        .command("mosquitto_pub")
        .args(["-h", SERVER, "-t", TOPIC, "-q", "1", "-l"])
        .stdin(std::fs::File::open(messages).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

/// Prints the rates by each way.
pub(super) fn rates(plant: &Plant) {
    let messages = std::env::temp_dir().join("penstock-bench-messages");
    std::fs::write(&messages, "21.5\n".repeat(MESSAGES)).unwrap();
    let ways = [
        ("routed, open broker".to_owned(), None, false),
        (format!("routed, broker with {RULES} lines"), None, true),
        ("inspected, 1 rule".to_owned(), Some(1), false),
        (format!("inspected, {RULES} rules"), Some(RULES), false),
    ];
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (place, (_, count, listed)) in ways.iter().enumerate() {
            gateway::clear(plant);
            let _broker = broker(plant, *listed);
            let _agent =
                count.map(|count| Inspecting::start(plant, &gateway::plan(PORT, Some(rules(count)))));
            figures[place].push(rate(plant, &messages));
        }
    }
    let medians = figures.map(median);
    println!(
        "MQTT publications at QoS 1, mosquitto_pub, {MESSAGES} a round, median of {ROUNDS} interleaved rounds:"
    );
    for ((name, ..), rate) in ways.iter().zip(medians) {
        println!("  {name:32} {rate:8.0} /s");
    }
    println!(
        "  {RULES} rules to 1: {:.2} (budget 0.90); to the broker's own list: {:.2} (budget 1.00)",
        medians[3] / medians[2],
        medians[3] / medians[1]
    );
}
