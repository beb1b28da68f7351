//! How many MQTT publications a second come through.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penstock_lab::Daemon;
use penstock_policy::protocol::Operations;
use penstock_policy::protocol::mqtt::MqttOperation;
use penstock_policy::terms::NumberRange;

use super::gateway::{self, Inspecting};
use super::{Plant, SERVER, median};

const ROUNDS: usize = 5;
/// Publications of one round.
pub(super) const MESSAGES: usize = 100_000;
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

/// `count` rules, of which the last one permits what is published.
pub(super) fn rules(count: usize) -> Operations {
    let publish = |topic: String| MqttOperation::Publish {
        topics: vec![topic],
        qos: NumberRange { first: 0, last: 1 },
        retain: false,
    };
    Operations::from(filters(count).map(publish).collect::<Vec<_>>())
}

/// The lines by which a broker has a list of [`RULES`] lines of its own.
fn listed() -> String {
    let list = std::env::temp_dir().join("penstock-bench.acl");
    let mut lines = String::new();
    for filter in filters(RULES) {
        writeln!(lines, "topic readwrite {filter}").unwrap();
    }
    std::fs::write(&list, lines).unwrap();
    format!("acl_file {}\n", list.display())
}

/// A broker; `more` is what else its configuration says.
pub(super) fn broker(plant: &Plant, port: u16, more: &str) -> Daemon {
    let text = format!(
        "listener {port} {SERVER}\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
         max_inflight_messages 0\nlog_type error\n{more}"
    );
    let configuration = std::env::temp_dir().join("penstock-bench-mosquitto.conf");
    std::fs::write(&configuration, text).unwrap();
    let arguments = ["-c", configuration.to_str().unwrap()];
    let broker = plant.server.spawn("mosquitto", "mosquitto", &arguments).unwrap();
    let listens = format!("{SERVER}:{port}");
    plant
        .server
        .wait_for_tcp(&listens, Duration::from_secs(5))
        .unwrap();
    broker
}

/// The file of what is published in one round.
pub(super) fn messages() -> PathBuf {
    let messages = std::env::temp_dir().join("penstock-bench-messages");
    std::fs::write(&messages, "21.5\n".repeat(MESSAGES)).unwrap();
    messages
}

/// Publications a second at QoS 1, from the first one sent until the broker has acknowledged the last. `to` is how
/// mosquitto_pub gets there.
pub(super) fn rate(plant: &Plant, messages: &Path, to: &[&str]) -> f64 {
    let began = Instant::now();
    let status = plant
        .client
        .command("mosquitto_pub")
        .args(["-t", TOPIC, "-q", "1", "-l"])
        .args(to)
        .stdin(std::fs::File::open(messages).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

/// Prints the rates by each way.
pub(super) fn rates(plant: &Plant) {
    let messages = messages();
    let ways = [
        ("routed, open broker".to_owned(), None, false),
        (format!("routed, broker with {RULES} lines"), None, true),
        ("inspected, 1 rule".to_owned(), Some(1), false),
        (format!("inspected, {RULES} rules"), Some(RULES), false),
    ];
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (place, (_, count, with_list)) in ways.iter().enumerate() {
            gateway::clear(plant);
            let own = if *with_list { listed() } else { String::new() };
            let _broker = broker(plant, PORT, &own);
            let _agent =
                count.map(|count| Inspecting::start(plant, &gateway::plan(PORT, Some(rules(count)))));
            figures[place].push(rate(plant, &messages, &["-h", SERVER]));
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
