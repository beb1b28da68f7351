//! The service manager (systemd) as the agent speaks with it: that it is ready and lives, and what it keeps for us while we
//! restart.
//!
//! Before a planned stop, descriptors go to the manager's store (`FDSTORE=1`, each under a name); the next start gets
//! them back by `LISTEN_FDS` and tells the store to forget them. Nobody listening is no error: the agent then ends as if
//! there were no store.
//!
//! systemd compares each descriptor that it is given with all that it keeps: a thousand connections would take it ten
//! seconds. So many descriptors travel as one: they wait in the queue of a socket ([`pack`]), and the store keeps that.

#[cfg(test)]
pub(crate) mod stored;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The first descriptor that a service gets.
const FIRST: RawFd = 3;
/// Descriptors in one message; the kernel takes 253. So many that a socket's queue holds more than a process may open.
const BATCH: usize = 250;
/// The most that are taken back.
const HANDED_MAX: usize = 65_536;
/// How long the manager has to take a message, or to say that it took all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The service manager's socket (sd_notify), if we run under one that wants to be told.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
}

/// A descriptor that was kept, under its name.
#[derive(Debug)]
pub struct StoredDescriptor {
    /// As it was stored.
    pub name: String,
    /// What was stored.
    pub descriptor: OwnedFd,
}

impl ServiceManager {
    /// From `NOTIFY_SOCKET`: a path, or `@name` in the abstract namespace.
    pub fn from_environment() -> Option<Self> {
        Self::at(&std::env::var("NOTIFY_SOCKET").ok()?)
    }

    /// Under that name; `None` if nobody listens there.
    pub fn at(name: &str) -> Option<Self> {
        let address = match name.strip_prefix('@') {
            Some(hidden) => SocketAddr::from_abstract_name(hidden),
            None => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect_addr(&address.ok()?).ok()?;
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self { socket })
    }

    /// Tells a state such as `READY=1`, `WATCHDOG=1` or `STOPPING=1`. Nobody listening is no error.
    pub fn tell(&self, state: &str) {
        let _ = self.socket.send(state.as_bytes());
    }

    /// How long the watchdog waits for a sign of life; `None`: it wants none.
    pub fn watchdog_allowed() -> Option<Duration> {
        let allowed = std::env::var("WATCHDOG_USEC").ok()?.parse::<u64>().ok()?;
        (allowed > 0).then(|| Duration::from_micros(allowed))
    }

    /// Gives descriptors into the store, under one name.
    ///
    /// # Errors
    /// The manager does not take a message in time, or takes none; what went before is kept.
    pub fn keep(&self, name: &str, descriptors: &[OwnedFd]) -> io::Result<()> {
        let message = format!("FDSTORE=1\nFDNAME={name}");
        for batch in descriptors.chunks(BATCH) {
            let borrowed: Vec<BorrowedFd<'_>> = batch.iter().map(|descriptor| descriptor.as_fd()).collect();
            send(&self.socket, &message, &borrowed)?;
        }
        Ok(())
    }

    /// Makes the store forget what it keeps under a name.
    pub fn forget(&self, name: &str) {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    /// Waits until the manager has handled all that was told: what a process tells it just before it ends may be
    /// taken for nobody's.
    ///
    /// # Errors
    /// The manager does not answer in time, or the message cannot be sent.
    pub async fn settle(&self) -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        send(&self.socket, "BARRIER=1", &[writer.as_fd()])?;
        drop(writer);
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
        let closed = tokio::time::timeout(PATIENCE, reader.readable()).await;
        closed.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// What was kept for this process. Once, at the start, before anything else opens a descriptor.
    pub fn kept() -> Vec<StoredDescriptor> {
        let variable = |name: &str| std::env::var(name).ok();
        let ours = variable("LISTEN_PID").and_then(|id| id.parse::<u32>().ok()) == Some(std::process::id());
        let count = variable("LISTEN_FDS").and_then(|count| count.parse::<usize>().ok());
        let (true, Some(count)) = (ours, count) else {
            return Vec::new();
        };
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        (FIRST..)
            .take(count.min(HANDED_MAX))
            .filter_map(|number| {
                let name = names.next().unwrap_or_default().to_owned();
                let descriptor = take(number)?;
                Some(StoredDescriptor { name, descriptor })
            })
            .collect()
    }
}

fn send(socket: impl AsFd, message: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let text = [IoSlice::new(message.as_bytes())];
    sendmsg(socket, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Any number of descriptors as two: a socket in whose queue they wait, and its peer, without which the manager would
/// take the first for dead.
pub(crate) fn pack(descriptors: &[OwnedFd]) -> io::Result<[OwnedFd; 2]> {
    let (from, to) = UnixStream::pair()?;
    // A queue that is full is an error, and nothing to wait for.
    from.set_nonblocking(true)?;
    to.set_nonblocking(true)?;
    for batch in descriptors.chunks(BATCH) {
        let borrowed: Vec<BorrowedFd<'_>> = batch.iter().map(|descriptor| descriptor.as_fd()).collect();
        send(&from, PACKED, &borrowed)?;
    }
    Ok([to.into(), from.into()])
}

/// The byte that goes with each batch of [`pack`].
const PACKED: &str = "+";

/// What waits in the queue of a socket of [`pack`]; nothing in that of its peer.
pub fn unpack(packed: &OwnedFd) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    while descriptors.len() < HANDED_MAX {
        let mut byte = [0; PACKED.len()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(packed, &mut [IoSliceMut::new(&mut byte)], &mut control, flags) {
            Ok(received) if received.bytes > 0 => {}
            Ok(_) | Err(_) => break,
        }
        descriptors.extend(
            control
                .drain()
                .filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(batch) => Some(batch),
                    _ => None,
                })
                .flatten(),
        );
    }
    descriptors
}

/// Takes over a descriptor that the process was started with; children do not get it.
#[allow(unsafe_code)]
fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: called once for each of the descriptors that the manager passed to this process for it to own, at its
    // start: nobody else has them. A number that is none is found by the call below, and is then not closed.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Some(descriptor),
        Err(_) => {
            let _ = std::os::fd::IntoRawFd::into_raw_fd(descriptor);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::io::Read as _;

    use super::stored::receive;
    use super::*;

    fn pair() -> (tempfile::TempDir, UnixDatagram, ServiceManager) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let service = ServiceManager::at(path.to_str().unwrap()).unwrap();
        (folder, manager, service)
    }

    #[test]
    fn the_service_manager_hears_that_we_are_ready() {
        let (_folder, manager, service) = pair();
        service.tell("READY=1");
        assert_eq!(receive(&manager).0, "READY=1");
    }

    #[test]
    fn descriptors_arrive_under_their_name_and_are_the_same_files() {
        let (_folder, manager, service) = pair();
        let pipes: Vec<_> = (0..BATCH + 1).map(|_| io::pipe().unwrap()).collect();
        let readers: Vec<OwnedFd> = pipes
            .iter()
            .map(|(reader, _)| reader.as_fd().try_clone_to_owned().unwrap())
            .collect();
        service.keep("leg", &readers).unwrap();
        let (text, first) = receive(&manager);
        assert_eq!((text.as_str(), first.len()), ("FDSTORE=1\nFDNAME=leg", BATCH));
        let (_, rest) = receive(&manager);
        assert_eq!(rest.len(), 1);
        drop(readers);
        let (_, writer) = &pipes[BATCH];
        std::io::Write::write_all(&mut writer.try_clone().unwrap(), b"here").unwrap();
        let mut file = std::fs::File::from(rest.into_iter().next().unwrap());
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"here");
    }

    /// Handed over one by one, a thousand connections took systemd ten seconds: the agent gave up, and they ended.
    #[test]
    fn thousands_of_descriptors_travel_as_two_and_are_the_same_files() {
        let (reader, writer) = io::pipe().unwrap();
        let mut descriptors: Vec<OwnedFd> = (0..599)
            .map(|_| reader.as_fd().try_clone_to_owned().unwrap())
            .collect();
        descriptors.push(writer.into());
        let [packed, peer] = pack(&descriptors).unwrap();
        drop(descriptors);
        assert!(unpack(&peer).is_empty());
        let mut back = unpack(&packed);
        assert_eq!(back.len(), 600);
        assert!(unpack(&packed).is_empty());
        std::io::Write::write_all(&mut std::fs::File::from(back.pop().unwrap()), b"here").unwrap();
        let mut bytes = [0; 4];
        std::fs::File::from(back.swap_remove(0))
            .read_exact(&mut bytes)
            .unwrap();
        assert_eq!(&bytes, b"here");
    }

    #[tokio::test]
    async fn the_end_waits_until_the_manager_has_taken_everything() {
        let (_folder, manager, service) = pair();
        let hearing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            receive(&manager).0
        });
        let began = std::time::Instant::now();
        service.settle().await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert_eq!(hearing.join().unwrap(), "BARRIER=1");
    }
}
