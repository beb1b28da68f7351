//! The peer: rsyslog's disk queue, which takes the same events as lines of text over a connection on this machine. Its action goes
//! nowhere, so that everything stays in the queue.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{amplified, folder, written};

const PROGRAM: &str = "/usr/sbin/rsyslogd";
/// Events that are sent, and how long it has for them at most.
const EVENTS: u64 = 200_000;
const WITHIN: Duration = Duration::from_secs(10);
/// What each line has once.
const MARK: &[u8] = b"verdict=deny";

/// Ends it with this bench.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn measure() {
    if !Path::new(PROGRAM).exists() {
        println!("rsyslog is not installed, so there is no peer to compare with: scripts/setup --bench");
        return;
    }
    for (sync, words) in [("on", "each event synced"), ("off", "not synced, so not durable")] {
        queue(sync, words);
    }
}

fn queue(sync: &str, words: &str) {
    let folder = folder();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let place = folder.path().display();
    let config = format!(
        "global(workDirectory=\"{place}\")\nmodule(load=\"imtcp\")\nmain_queue(queue.type=\"Disk\" queue.filename=\"main\" \
         queue.maxfilesize=\"1g\" queue.syncqueuefiles=\"{sync}\" queue.checkpointinterval=\"1000\" queue.timeoutshutdown=\"1\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{nowhere}\" protocol=\"tcp\" action.resumeRetryCount=\"-1\")\n"
    );
    let file = folder.path().join("rsyslog.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg("-n")
        .arg("-f")
        .arg(&file)
        .arg("-i")
        .arg(folder.path().join("pid"));
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let daemon = Daemon(child);
    let process = daemon.0.id().to_string();
    let started = Instant::now();
    let stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) => assert!(started.elapsed() < WITHIN, "rsyslogd does not start: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (began, before) = (Instant::now(), written(&process));
    let mut stream = std::io::BufWriter::new(stream);
    let sender = std::thread::spawn(move || {
        // It ends with the daemon.
        let _ = (0..EVENTS).try_for_each(|number| stream.write_all(line(number).as_bytes()));
    });
    let mut queued = Queued::default();
    while began.elapsed() < WITHIN && queued.events < EVENTS {
        std::thread::sleep(Duration::from_millis(10));
        queued.look(folder.path());
    }
    let took = began.elapsed().as_secs_f64();
    assert!(queued.events > 0, "the queue's files hold none of the events");
    let bytes = line(0).len() as u64;
    let amplified = amplified(&process, before, queued.events * bytes);
    drop(daemon);
    sender.join().unwrap();
    println!(
        "rsyslog's disk queue, {words}: {:.0} events/s of {bytes} bytes, {amplified}",
        queued.events as f64 / took
    );
}

fn line(number: u64) -> String {
    let [.., high, low] = number.to_be_bytes();
    format!(
        "<132>1 2026-11-30T10:00:00.000Z gw-1 penstock - - - verdict=deny ingress=lan1 egress=lan2 source=10.1.{high}.{low} \
         destination=10.2.0.9 protocol=6 port=502 count=1 first={number} last={number} reason=no rule of this revision matches: \
         between office and control nothing leads to tcp/502\n"
    )
}

/// What stands in the queue's files.
#[derive(Default)]
struct Queued {
    events: u64,
    offset: u64,
}

impl Queued {
    /// Reads on: the whole queue is one file.
    fn look(&mut self, folder: &Path) {
        let Ok(mut file) = File::open(folder.join("main.00000001")) else {
            return;
        };
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let found = bytes.windows(MARK.len()).filter(|window| *window == MARK).count();
        self.events += found as u64;
        // What may be the beginning of a mark is read again.
        let seen = bytes.len().saturating_sub(MARK.len() - 1);
        self.offset += seen as u64;
    }
}
