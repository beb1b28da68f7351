//! Clients that others wrote, kept running and counted: what they asked, what was answered, when last.
//!
//! `mbpoll` (libmodbus) polls a register on one standing connection and goes on with that same connection after an
//! error; `ping` numbers its packets; `mosquitto_sub` prints the numbers that a publisher sends. Each line that they print is read as it comes and stamped with the
//! machine's clock, which stands in events too. Only counts are kept, so a counter may run for as long as the plant does.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use penstock_lab::{LabError, Namespace, wait_until};

/// Time between two questions of a client.
pub(super) const INTERVAL_MS: u64 = 20;
/// How long a Modbus client waits for an answer.
const ANSWER_TIMEOUT_S: &str = "0.3";

/// What a client has seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Answered questions.
    pub(super) answered: u64,
    /// Questions that got no answer, or a wrong one.
    pub(super) lost: u64,
    /// When the last answer came, milliseconds since 1970; 0 before the first.
    pub(super) last_answer_ms: u64,
    /// First number seen, where answers are numbered.
    first: Option<u64>,
    /// Highest number seen, where answers are numbered.
    highest: u64,
}

/// A client that goes on until it is dropped.
#[derive(Debug)]
pub(super) struct Counter {
    what: &'static str,
    child: Child,
    tally: Arc<Mutex<Tally>>,
}

impl Counter {
    /// Polls holding register 0 of unit 1 at `address` on one connection.
    pub(super) fn modbus(what: &'static str, from: &Namespace, address: &str) -> Result<Self, LabError> {
        // `stdbuf`: a line is to be seen when it is printed, not when a buffer is full.
        let poll = format!(
            "exec stdbuf -oL mbpoll -m tcp -a 1 -0 -r 0 -c 1 -l {INTERVAL_MS} -o {ANSWER_TIMEOUT_S} {address} 2>&1"
        );
        Self::start(what, from, &poll, modbus_line)
    }

    /// Sends numbered echo requests to `address`.
    pub(super) fn ping(what: &'static str, from: &Namespace, address: &str) -> Result<Self, LabError> {
        let seconds = Duration::from_millis(INTERVAL_MS).as_secs_f64();
        Self::start(
            what,
            from,
            &format!("exec stdbuf -oL ping -n -i {seconds} {address} 2>&1"),
            ping_line,
        )
    }

    /// Subscribes to the numbered messages on `topic` of the broker at `address`.
    pub(super) fn mqtt(
        what: &'static str,
        from: &Namespace,
        address: &str,
        topic: &str,
    ) -> Result<Self, LabError> {
        let script = format!("exec stdbuf -oL mosquitto_sub -h {address} -q 1 -t {topic} 2>&1");
        Self::start(what, from, &script, number_line)
    }

    fn start(
        what: &'static str,
        from: &Namespace,
        script: &str,
        read: fn(&str, &mut Tally),
    ) -> Result<Self, LabError> {
        let mut child = from
            .command("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| LabError::system("start", what, e))?;
        let tally = Arc::new(Mutex::new(Tally::default()));
        if let Some(output) = child.stdout.take() {
            let tally = Arc::clone(&tally);
            // Ends with the client, whose death closes the pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    read(&line, &mut tally.lock().unwrap_or_else(PoisonError::into_inner));
                }
            });
        }
        let counter = Self { what, child, tally };
        Ok(counter)
    }

    /// What it is, for people.
    pub(super) fn what(&self) -> &'static str {
        self.what
    }

    /// What it has seen up to now.
    pub(super) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has got `answers` more answers than now.
    pub(super) fn wait_for_answers(&self, answers: u64, patience: Duration) -> Result<Tally, LabError> {
        let goal = self.tally().answered.saturating_add(answers);
        wait_until(&format!("{answers} answers to: {}", self.what), patience, || {
            self.tally().answered >= goal
        })?;
        Ok(self.tally())
    }

    /// Waits until a question remained without an answer.
    pub(super) fn wait_for_loss(&self, patience: Duration) -> Result<Tally, LabError> {
        let before = self.tally().lost;
        wait_until(
            &format!("an unanswered question of: {}", self.what),
            patience,
            || self.tally().lost > before,
        )?;
        Ok(self.tally())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself, which is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// `[0]:   700` is an answer, `Read output (holding) register failed: …` is none.
fn modbus_line(line: &str, tally: &mut Tally) {
    if line.starts_with('[') {
        tally.answered = tally.answered.saturating_add(1);
        tally.last_answer_ms = now_ms();
    } else if line.contains("failed") {
        tally.lost = tally.lost.saturating_add(1);
    }
}

/// `64 bytes from 10.20.4.7: icmp_seq=12 ttl=63 time=0.05 ms`: a gap in the numbers is a loss.
fn ping_line(line: &str, tally: &mut Tally) {
    let Some(sequence) = line
        .split("icmp_seq=")
        .nth(1)
        .filter(|_| line.contains("bytes from"))
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse::<u64>().ok())
    else {
        return;
    };
    // The number has 16 bits and begins again from 0.
    let sequence = tally.highest.wrapping_sub(tally.highest & 0xffff) | sequence;
    numbered(
        if sequence < tally.highest {
            sequence.saturating_add(0x1_0000)
        } else {
            sequence
        },
        tally,
    );
}

/// `17`: the seventeenth message that was published.
fn number_line(line: &str, tally: &mut Tally) {
    if let Ok(number) = line.trim().parse() {
        numbered(number, tally);
    }
}

/// Counts an answer by its number: what is missing between the first and the highest is lost.
fn numbered(number: u64, tally: &mut Tally) {
    let first = *tally.first.get_or_insert(number);
    tally.answered = tally.answered.saturating_add(1);
    tally.highest = tally.highest.max(number);
    let span = tally.highest.saturating_sub(first).saturating_add(1);
    tally.lost = span.saturating_sub(tally.answered);
    tally.last_answer_ms = now_ms();
}

/// This machine's clock, milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str, read: fn(&str, &mut Tally)) -> Tally {
        let mut tally = Tally::default();
        lines.lines().for_each(|line| read(line, &mut tally));
        tally
    }

    #[test]
    fn modbus_answers_and_failures_are_told_apart() {
        let tally = read(
            "-- Polling slave 1... Ctrl-C to stop)\n[0]: \t700\n[0]: \t700\nRead output (holding) register failed: Invalid data\n",
            modbus_line,
        );
        assert_eq!((tally.answered, tally.lost), (2, 1));
    }

    #[test]
    fn a_gap_in_the_numbers_of_ping_is_a_loss() {
        let tally = read(
            "PING 10.20.4.7 (10.20.4.7) 56(84) bytes of data.\n\
             64 bytes from 10.20.4.7: icmp_seq=1 ttl=63 time=0.052 ms\n\
             64 bytes from 10.20.4.7: icmp_seq=2 ttl=63 time=0.052 ms\n\
             64 bytes from 10.20.4.7: icmp_seq=5 ttl=63 time=0.052 ms\n",
            ping_line,
        );
        assert_eq!((tally.answered, tally.lost), (3, 2));
    }

    #[test]
    fn the_numbers_of_ping_begin_again_after_sixteen_bits() {
        let mut tally = Tally {
            answered: 65_535,
            first: Some(1),
            highest: 65_535,
            ..Tally::default()
        };
        ping_line(
            "64 bytes from 10.20.4.7: icmp_seq=0 ttl=63 time=0.05 ms",
            &mut tally,
        );
        ping_line(
            "64 bytes from 10.20.4.7: icmp_seq=1 ttl=63 time=0.05 ms",
            &mut tally,
        );
        assert_eq!((tally.answered, tally.lost), (65_537, 0));
    }
}
