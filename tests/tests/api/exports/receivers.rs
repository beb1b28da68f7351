//! Receivers that others wrote, each with ports, folders and certificates of the test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// An authority that is not the plant's, a server and a client of it, as PEM files.
pub struct Pki(PathBuf);

impl Pki {
    pub fn new(folder: &Path) -> Self {
        let folder = folder.join("pki");
        std::fs::create_dir(&folder).unwrap();
        let root_key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        root.distinguished_name.push(rcgen::DnType::CommonName, "logs");
        let certificate = root.self_signed(&root_key).unwrap();
        std::fs::write(folder.join("root.pem"), certificate.pem()).unwrap();
        let issuer = rcgen::Issuer::new(root, root_key);
        for (name, usage, names) in [
            (
                "server",
                rcgen::ExtendedKeyUsagePurpose::ServerAuth,
                vec!["127.0.0.1".to_owned(), "127.0.83.22".to_owned()],
            ),
            (
                "client",
                rcgen::ExtendedKeyUsagePurpose::ClientAuth,
                vec!["coordinator.example".to_owned()],
            ),
        ] {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut leaf = rcgen::CertificateParams::new(names).unwrap();
            leaf.extended_key_usages = vec![usage];
            let leaf = leaf.signed_by(&key, &issuer).unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), leaf.pem()).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self(folder)
    }

    pub fn root(&self) -> PathBuf {
        self.own("root.pem")
    }

    pub fn own(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// Each whole line of a file that is JSON.
pub fn lines(file: &Path) -> Vec<Value> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    bytes[..whole]
        .split(|byte| *byte == b'\n')
        // A receiver that is killed may leave a part of a line, and begin the next one behind it.
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// An rsyslog that takes messages over TLS from clients with a certificate, and writes what it understood of each.
pub struct Rsyslog {
    pub port: u16,
    pub out: PathBuf,
    folder: PathBuf,
    child: Child,
}

impl Rsyslog {
    pub fn start(folder: &Path, pki: &Pki, host: &str) -> Self {
        let folder = folder.join("rsyslog");
        std::fs::create_dir(&folder).unwrap();
        let port = {
            let listener = TcpListener::bind((host, 0)).unwrap();
            listener.local_addr().unwrap().port()
        };
        let out = folder.join("received.jsonl");
        let field = |name: &str, property: &str| {
            format!("property(outname=\"{name}\" name=\"{property}\" format=\"jsonf\")")
        };
        let comma = "constant(value=\",\")";
        let conf = format!(
            "global(workDirectory={work:?} maxMessageSize=\"64k\" defaultNetstreamDriver=\"gtls\"\n\
             defaultNetstreamDriverCAFile={root:?} defaultNetstreamDriverCertFile={cert:?} defaultNetstreamDriverKeyFile={key:?})\n\
             module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")\n\
             template(name=\"all\" type=\"list\") {{ constant(value=\"{{\") {raw} {comma} {data} {comma} {host_} {comma} {app} {comma} {kind} \
             constant(value=\"}}\\n\") }}\n\
             ruleset(name=\"in\") {{ action(type=\"omfile\" file={out:?} template=\"all\") }}\n\
             input(type=\"imtcp\" address=\"{host}\" port=\"{port}\" ruleset=\"in\")\n",
            work = folder,
            root = pki.root(),
            cert = pki.own("server.pem"),
            key = pki.own("server.key"),
            raw = field("raw", "rawmsg"),
            data = field("data", "structured-data"),
            host_ = field("host", "hostname"),
            app = field("app", "app-name"),
            kind = field("kind", "msgid"),
        );
        std::fs::write(folder.join("rsyslog.conf"), conf).unwrap();
        let child = Self::launched(&folder, host, port);
        Self {
            port,
            out,
            folder,
            child,
        }
    }

    fn launched(folder: &Path, host: &str, port: u16) -> Child {
        let pid = folder.join("pid");
        let _ = std::fs::remove_file(&pid);
        let mut child = Command::new("rsyslogd")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["-n", "-f"])
            .arg(folder.join("rsyslog.conf"))
            .arg("-i")
            .arg(&pid)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("errors")).unwrap())
            .spawn()
            .expect("rsyslogd: run scripts/setup");
        let begun = Instant::now();
        while std::net::TcpStream::connect((host, port)).is_err() {
            let errors = || std::fs::read_to_string(folder.join("errors")).unwrap_or_default();
            assert_eq!(child.try_wait().unwrap(), None, "{}", errors());
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", errors());
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    /// As kill -9 does, and the next one on the same port.
    pub fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::launched(&self.folder, "127.0.83.22", self.port);
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A collector in Python, by the messages that OpenTelemetry publishes.
pub struct Collector {
    pub port: u16,
    pub out: PathBuf,
    child: Child,
}

impl Collector {
    pub fn start(folder: &Path, pki: &Pki) -> Self {
        use std::io::BufRead as _;
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers/bin/python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/exports/collector.py");
        let out = folder.join("collected.jsonl");
        let mut child = Command::new(python)
            .arg(script)
            .args([pki.own("server.pem"), pki.own("server.key"), pki.root()])
            .arg(&out)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("target/peers: run scripts/setup");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            port: line.trim().parse().expect("target/peers: run scripts/setup"),
            out,
            child,
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
