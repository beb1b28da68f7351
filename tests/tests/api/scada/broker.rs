//! A broker and its readers, all of them programs that others wrote.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::world::PATIENCE;

/// mosquitto: MQTT 5, TLS, a certificate from each client; it keeps nothing when it ends.
pub struct Broker {
    pub port: u16,
    dir: tempfile::TempDir,
    running: Option<Child>,
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}

impl Broker {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut broker = Self {
            port,
            dir,
            running: None,
        };
        broker.certify();
        let file = |name: &str| broker.file(name);
        let text = format!(
            "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
             use_identity_as_username true\nallow_anonymous false\npersistence false\nuser root\n",
            file("ca.pem"),
            file("server.pem"),
            file("server.key"),
        );
        std::fs::write(file("mosquitto.conf"), text).unwrap();
        broker.start_again();
        broker
    }

    fn certify(&self) {
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "plant it");
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        std::fs::write(self.file("ca.pem"), root_pem).unwrap();
        let issuer = Issuer::new(root, root_key);
        for (name, usage) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            leaf.distinguished_name.push(DnType::CommonName, name);
            leaf.extended_key_usages = vec![usage];
            let pem = leaf.signed_by(&key, &issuer).unwrap().pem();
            std::fs::write(self.file(&format!("{name}.pem")), pem).unwrap();
            std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }

    pub fn start_again(&mut self) {
        let mut command = program("mosquitto");
        command.arg("-c").arg(self.file("mosquitto.conf"));
        self.running = Some(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One of mosquitto's clients, with a certificate of its own.
    fn client(&self, name: &str) -> Command {
        let mut command = program(name);
        let port = self.port.to_string();
        command.args(["-V", "5", "-h", "localhost", "-p", port.as_str(), "-q", "1"]);
        for (flag, file) in [
            ("--cafile", "ca.pem"),
            ("--cert", "client.pem"),
            ("--key", "client.key"),
        ] {
            command.arg(flag).arg(self.file(file));
        }
        command
    }

    pub fn publish(&self, topic: &str, message: &str, more: &[&str]) {
        let mut command = self.client("mosquitto_pub");
        let done = command
            .args(["-t", topic, "-m", message])
            .args(more)
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program that writes a line for each message.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self, until: Instant) -> String {
        let left = until.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).expect("a message in time")
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mosquitto_sub`, as a SCADA reads: what is kept at first, then what comes.
pub struct Reader {
    lines: Lines,
    /// All that was read but who is online, as JSON.
    read: Vec<Value>,
    newest: BTreeMap<String, Value>,
}

impl Reader {
    pub fn new(broker: &Broker, topics: &[&str]) -> Self {
        let mut command = broker.client("mosquitto_sub");
        command.args(["-F", "%t %p"]);
        for topic in topics {
            command.args(["-t", topic]);
        }
        Self {
            lines: Lines::of(command),
            read: Vec::new(),
            newest: BTreeMap::new(),
        }
    }

    /// What a topic says, as soon as it is as wanted.
    pub async fn until(&mut self, topic: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(newest) = self.newest.get(topic).filter(|newest| wanted(newest)) {
                return newest.clone();
            }
            let line = tokio::task::block_in_place(|| self.lines.next(until));
            let (of, said) = line.split_once(' ').unwrap();
            if of.ends_with("/ack") {
                continue;
            }
            let said: Value = serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {line}"));
            if !said.is_boolean() {
                self.read.push(said.clone());
            }
            self.newest.insert(of.to_owned(), said);
        }
    }

    /// All that was read is what the documentation's schema says, by a validator that others wrote.
    pub fn validate(&self) {
        assert!(!self.read.is_empty());
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let code = "import json, jsonschema, sys\nschema = json.load(open(sys.argv[1]))\n\
                    jsonschema.Draft202012Validator.check_schema(schema)\n\
                    for one in json.loads(sys.argv[2]): jsonschema.validate(one, schema)\n\
                    try: jsonschema.validate({'schema': 'penstock.scada-alarm/1'}, schema)\n\
                    except jsonschema.ValidationError: sys.exit(0)\nsys.exit(1)";
        let done = Command::new(root.join("target/peers/bin/python"))
            .args(["-c", code])
            .arg(root.join("docs/scada.schema.json"))
            .arg(json!(self.read).to_string())
            .status();
        assert!(done.unwrap().success());
    }
}

/// A Sparkplug host application by pysparkplug, which asks for a birth whenever it connects.
pub struct Host(Lines);

const HOST: &str = r#"
import json, sys, time
import pysparkplug as spb
port, ca, cert, key, group, node = int(sys.argv[1]), *sys.argv[2:]
def topic_of(kind):
    return spb.Topic(group_id=group, message_type=kind, edge_node_id=node)
def seen(client, message):
    payload, kind = message.payload, message.topic.message_type.value
    said = {"kind": kind, "seq": getattr(payload, "seq", None), "bd_seq": getattr(getattr(payload, "bd_seq_metric", None), "value", None)}
    said["metrics"] = {metric.name: metric.value for metric in getattr(payload, "metrics", ())}
    # What changed is read by the birth before it.
    if kind == "NBIRTH":
        client.subscribe(topic_of(spb.MessageType.NDATA), spb.QoS.AT_LEAST_ONCE, seen)
    print(json.dumps(said), flush=True)
client = spb.Client("host", transport_config=spb.TLSConfig(ca_certs=ca, certfile=cert, keyfile=key))
for kind in (spb.MessageType.NDEATH, spb.MessageType.NBIRTH):
    client.subscribe(topic_of(kind), spb.QoS.AT_LEAST_ONCE, seen)
def connected(client):
    now = spb.get_current_timestamp()
    rebirth = spb.Metric(timestamp=now, name="Node Control/Rebirth", datatype=spb.DataType.BOOLEAN, value=True)
    payload = spb.NCmd(timestamp=now, metrics=(rebirth,))
    topic = topic_of(spb.MessageType.NCMD)
    client.publish(spb.Message(topic=topic, payload=payload, qos=spb.QoS.AT_MOST_ONCE, retain=False), include_dtypes=True)
client.connect("localhost", port=port, callback=connected, blocking=True)
"#;

impl Host {
    pub fn start(broker: &Broker, group: &str, node: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = root.parent().unwrap().join("target/peers-sparkplug/bin/python");
        let mut command = Command::new(python);
        command.args(["-c", HOST, &broker.port.to_string()]);
        command.args(["ca.pem", "client.pem", "client.key"].map(|name| broker.file(name)));
        command.args([group, node]);
        Self(Lines::of(command))
    }

    /// The first message of a kind that is as wanted.
    pub async fn until(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = tokio::task::block_in_place(|| self.0.next(until));
            let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if said["kind"] == kind && wanted(&said) {
                return said;
            }
        }
    }
}
