//! What is asked of the TPM, one command after another, by the one thread that talks to it.
//!
//! Behind the kernel's resource manager (`/dev/tpmrm0`), the connection and the loaded key are kept: a signature is one command. A TPM without one
//! (swtpm) keeps what is loaded for whoever comes next, and has room for three keys: there each request ends with nothing loaded and the connection
//! closed, so that other programs can use it, too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use penstock_policy::ids::Digest;

use super::TpmAddress;
use super::wire::{self, Answer, Code, Command, MESSAGE_BYTES_MAX, WrappedKey};

/// Pause before a command that the TPM asked to repeat, and how often it is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRIES_MAX: u32 = 50;

/// Why a TPM did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// It cannot be reached.
    #[error(
        "the TPM at {address} cannot be reached ({source}): see that it is switched on in the firmware, that the kernel has its driver, and that the agent's user may open it; where its driver came after the agent's start, restart the agent"
    )]
    Gone {
        /// Where.
        address: TpmAddress,
        /// Why not.
        source: Words,
    },
    /// It does not answer.
    #[error("the TPM at {0} does not answer; it is asked again in a while")]
    Hung(TpmAddress),
    /// Its answer has no sense.
    #[error("the TPM at {address} gave an answer to {command} that is none: it is broken, or no TPM 2.0")]
    Garbage {
        /// Where.
        address: TpmAddress,
        /// To what.
        command: &'static str,
    },
    /// It does not know the key.
    #[error(
        "the TPM at {0} does not know this gateway's key: it was cleared since the key was made, or the file is of another machine. The key is lost; get a token, and run `penstock-agent enrol --new-key --token FILE`"
    )]
    Foreign(TpmAddress),
    /// Its owner keeps others out.
    #[error(
        "the owner of the TPM at {0} gave its owner hierarchy a password or switched it off: clear the TPM in the firmware, or take both back (tpm2_changeauth -c owner)"
    )]
    Owned(TpmAddress),
    /// Another refusal.
    #[error("the TPM at {address} refused {command} with code {code:#05x}{}", remedy(*code))]
    Refused {
        /// Where.
        address: TpmAddress,
        /// What.
        command: &'static str,
        /// TPM_RC.
        code: u32,
    },
}

/// An error of the system in words, which can be given to several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(String);

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Words {}

fn remedy(code: u32) -> &'static str {
    match wire::cause(code) {
        wire::RC_INITIALIZE => ": the firmware has not started it",
        wire::RC_OBJECT_MEMORY => {
            ": programs that use it without the kernel's resource manager left it full; use /dev/tpmrm0"
        }
        wire::RC_LOCKOUT => ": it is locked after wrong passwords; see tpm2_dictionarylockout",
        wire::RC_DISABLED => ": it does not have this command",
        _ => "",
    }
}

/// Bytes there and back.
pub(super) trait Transport: Send {
    /// Sends a command and waits for its answer, no longer than until `deadline` where it can tell.
    fn exchange(&mut self, command: &[u8], deadline: Instant) -> io::Result<Vec<u8>>;

    /// Whether what is loaded here is nobody else's, and goes when this is closed.
    fn has_a_resource_manager(&self) -> bool;
}

/// The kernel's device: a write is a command, a read its answer. The kernel knows how long each command may take.
struct Device(File);

impl Transport for Device {
    fn exchange(&mut self, command: &[u8], _: Instant) -> io::Result<Vec<u8>> {
        self.0.write_all(command)?;
        let mut answer = vec![0; MESSAGE_BYTES_MAX];
        let count = self.0.read(&mut answer)?;
        answer.truncate(count);
        Ok(answer)
    }

    fn has_a_resource_manager(&self) -> bool {
        true
    }
}

/// swtpm's socket, a stream.
struct Socket(UnixStream);

impl Transport for Socket {
    fn exchange(&mut self, command: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
        let left = |_: &Self| match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::from(io::ErrorKind::TimedOut)),
            left => Ok(Some(left)),
        };
        self.0.set_write_timeout(left(self)?)?;
        self.0.write_all(command)?;
        let mut answer = Vec::with_capacity(wire::HEADER_BYTES);
        self.read_up_to(&mut answer, wire::HEADER_BYTES, deadline)?;
        let header: [u8; wire::HEADER_BYTES] = answer
            .as_slice()
            .try_into()
            .map_err(|_| io::ErrorKind::UnexpectedEof)?;
        // One that says nonsense of its size is given on as it is: it is no answer.
        let size = wire::size_in_header(&header).unwrap_or(wire::HEADER_BYTES);
        self.read_up_to(&mut answer, size, deadline)?;
        Ok(answer)
    }

    fn has_a_resource_manager(&self) -> bool {
        false
    }
}

impl Socket {
    /// Reads until `answer` has so many bytes, however slowly they come, until the deadline.
    fn read_up_to(&mut self, answer: &mut Vec<u8>, size: usize, deadline: Instant) -> io::Result<()> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        while answer.len() < size {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.0.set_read_timeout(Some(left))?;
            let room = buffer.get_mut(..size.saturating_sub(answer.len()));
            let count = self.0.read(room.unwrap_or_default())?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend(buffer.iter().take(count));
        }
        Ok(())
    }
}

fn open(address: &TpmAddress) -> io::Result<Box<dyn Transport>> {
    Ok(match address {
        TpmAddress::Device(path) => Box::new(Device(OpenOptions::new().read(true).write(true).open(path)?)),
        TpmAddress::Socket(path) => Box::new(Socket(UnixStream::connect(path)?)),
    })
}

/// The connection to a TPM, and what is loaded over it.
pub(super) struct Session {
    address: TpmAddress,
    transport: Option<Box<dyn Transport>>,
    loaded: Option<(Digest, u32)>,
    deadline: Instant,
}

impl Session {
    pub(super) fn new(address: TpmAddress) -> Self {
        Self {
            address,
            transport: None,
            loaded: None,
            deadline: Instant::now(),
        }
    }

    /// The same over a transport that stands.
    #[cfg(test)]
    pub(super) fn over(address: TpmAddress, transport: Box<dyn Transport>) -> Self {
        Self {
            transport: Some(transport),
            ..Self::new(address)
        }
    }

    /// Does one request, which has until `deadline`, and leaves nothing behind where others would find it.
    pub(super) fn request<T>(
        &mut self,
        deadline: Instant,
        request: impl FnOnce(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        self.deadline = deadline;
        let done = request(self);
        let keeps = self
            .transport
            .as_ref()
            .is_some_and(|transport| transport.has_a_resource_manager());
        if !keeps {
            if let Some((_, handle)) = self.loaded.take() {
                self.forget(handle);
            }
            self.transport = None;
        }
        done
    }

    /// Makes a key.
    pub(super) fn create_key(&mut self) -> Result<WrappedKey, TpmError> {
        let parent = self.storage_key()?;
        let created = self.run(&wire::create(parent), |_, parameters| wire::created(parameters));
        self.forget(parent);
        created
    }

    /// Signs this digest with this key.
    pub(super) fn sign(&mut self, wrapped: &WrappedKey, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        let name = Digest::of(&wrapped.private);
        let was_loaded = self.loaded.as_ref().is_some_and(|(loaded, _)| *loaded == name);
        let signed = self.sign_loaded(wrapped, name, digest);
        if signed.is_err() && was_loaded {
            // A machine that slept, or a TPM that was reset, knows nothing of what was loaded before.
            (self.transport, self.loaded) = (None, None);
            return self.sign_loaded(wrapped, name, digest);
        }
        signed
    }

    /// What the counter shows; `None`: there is none.
    pub(super) fn counter(&mut self) -> Result<Option<u64>, TpmError> {
        match self.run(&wire::read_counter(), |_, parameters| wire::counter(parameters)) {
            Ok(shown) => Ok(Some(shown)),
            Err(TpmError::Refused { code, .. })
                if [wire::RC_HANDLE, wire::RC_NV_UNINITIALIZED].contains(&wire::cause(code)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the counter, unless that was broken off after it was made; what it shows.
    pub(super) fn begin_counter(&mut self) -> Result<u64, TpmError> {
        let done = |_: u32, parameters: &[u8]| parameters.is_empty().then_some(());
        match self.run(&wire::define_counter(), done) {
            Err(TpmError::Refused { code, .. }) if wire::cause(code) == wire::RC_NV_DEFINED => {}
            Err(TpmError::Refused { code, .. })
                if [wire::RC_AUTH_FAIL, wire::RC_BAD_AUTH, wire::RC_HIERARCHY]
                    .contains(&wire::cause(code)) =>
            {
                return Err(TpmError::Owned(self.address.clone()));
            }
            other => other?,
        }
        self.count_up()?;
        self.run(&wire::read_counter(), |_, parameters| wire::counter(parameters))
    }

    /// Has the counter go up by one.
    pub(super) fn count_up(&mut self) -> Result<(), TpmError> {
        self.run(&wire::increment(), |_, parameters| {
            parameters.is_empty().then_some(())
        })
    }

    fn sign_loaded(
        &mut self,
        wrapped: &WrappedKey,
        name: Digest,
        digest: &[u8; 32],
    ) -> Result<Vec<u8>, TpmError> {
        let handle = match self.loaded {
            Some((loaded, handle)) if loaded == name => handle,
            another => {
                self.loaded = None;
                if let Some((_, handle)) = another {
                    self.forget(handle);
                }
                let handle = self.load(wrapped)?;
                self.loaded = Some((name, handle));
                handle
            }
        };
        self.run(&wire::sign(handle, digest), |_, parameters| {
            wire::signature(parameters)
        })
    }

    fn load(&mut self, wrapped: &WrappedKey) -> Result<u32, TpmError> {
        let parent = self.storage_key()?;
        // The answer's only parameter is the key's name, by which it is bound to its public half.
        let loaded = self.run(&wire::load(parent, wrapped), |handle, _| Some(handle));
        self.forget(parent);
        match loaded {
            Err(TpmError::Refused { code, .. }) if wire::cause(code) == wire::RC_INTEGRITY => {
                Err(TpmError::Foreign(self.address.clone()))
            }
            loaded => loaded,
        }
    }

    fn storage_key(&mut self) -> Result<u32, TpmError> {
        let made = self.run(&wire::create_primary(), |handle, _| Some(handle));
        match made {
            Err(TpmError::Refused { code, .. })
                if [wire::RC_AUTH_FAIL, wire::RC_BAD_AUTH, wire::RC_HIERARCHY]
                    .contains(&wire::cause(code)) =>
            {
                Err(TpmError::Owned(self.address.clone()))
            }
            made => made,
        }
    }

    /// What cannot be flushed goes with the connection.
    fn forget(&mut self, handle: u32) {
        if self
            .run(&wire::flush(handle), |_, parameters| {
                parameters.is_empty().then_some(())
            })
            .is_err()
        {
            self.transport = None;
        }
    }

    /// Runs one command, and takes of its answer what `read` finds there.
    fn run<T>(&mut self, command: &Command, read: impl Fn(u32, &[u8]) -> Option<T>) -> Result<T, TpmError> {
        let Code { name, .. } = command.code;
        let mut retries = 0;
        loop {
            let answered = match self.exchange(&command.bytes) {
                Ok(answered) => answered,
                Err(source) => {
                    (self.transport, self.loaded) = (None, None);
                    return Err(self.unanswered(&source));
                }
            };
            match wire::answer(command, &answered) {
                Some(Answer::Done { handle, parameters }) => {
                    if let Some(found) = read(handle, parameters) {
                        return Ok(found);
                    }
                }
                Some(Answer::Refused(code)) => {
                    let again = [
                        wire::RC_RETRY,
                        wire::RC_YIELDED,
                        wire::RC_TESTING,
                        wire::RC_NV_RATE,
                    ];
                    if again.contains(&wire::cause(code))
                        && retries < RETRIES_MAX
                        && Instant::now() < self.deadline
                    {
                        retries += 1;
                        std::thread::sleep(RETRY_PAUSE);
                        continue;
                    }
                    return Err(TpmError::Refused {
                        address: self.address.clone(),
                        command: name,
                        code,
                    });
                }
                None => {}
            }
            // Who says such a thing once says the next thing out of place.
            (self.transport, self.loaded) = (None, None);
            return Err(TpmError::Garbage {
                address: self.address.clone(),
                command: name,
            });
        }
    }

    fn exchange(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let deadline = self.deadline;
        let transport = match &mut self.transport {
            Some(transport) => transport,
            none => none.insert(open(&self.address)?),
        };
        transport.exchange(bytes, deadline)
    }

    fn unanswered(&self, source: &io::Error) -> TpmError {
        match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => TpmError::Hung(self.address.clone()),
            _ => TpmError::Gone {
                address: self.address.clone(),
                source: Words(source.to_string()),
            },
        }
    }
}
