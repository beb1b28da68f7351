//! Inspected connections across a planned restart: their sockets and their state, from one process to the next.
//!
//! The sockets of listeners and legs, and one file in memory with the state of all connections, are kept by the service
//! manager between the two. While nobody carries them, the kernel acknowledges and buffers what the peers send: they
//! see a pause, and nothing is lost.
//!
//! What comes back is not trusted blindly: state of another format, sockets that are none of ours, and connections
//! that the policy then in force does not permit, or that cannot be thawed, are reset.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use penstock_inspect::connection::Sender;
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::socket::Way;
use crate::service_manager::{Kept, ServiceManager, pack, unpack};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// State beyond this is not handed over.
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Names in the store.
const LISTENER: &str = "listener";
const LEGS: &str = "legs";
const STATE: &str = "state";

/// One of two, by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Each<T> {
    pub(super) client: T,
    pub(super) server: T,
}

impl<T> Each<T> {
    pub(super) fn of(&self, side: Sender) -> &T {
        match side {
            Sender::Client => &self.client,
            Sender::Server => &self.server,
        }
    }
}

/// A connection that nobody carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Frozen {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    /// `None`: the server was not reached yet.
    pub(super) relay: Option<FrozenRelay>,
}

/// The state of a connection whose both legs stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrozenRelay {
    /// What `Connection::freeze` gave; `None`: no operation was limited.
    pub(super) connection: Option<String>,
    /// What each side has not taken yet.
    pub(super) backlog: Each<Vec<u8>>,
    /// Which side sends no more.
    pub(super) over: Each<bool>,
    /// Which side was told that nothing more comes.
    pub(super) finished: Each<bool>,
}

/// A frozen connection with its sockets.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) frozen: Frozen,
    pub(super) client: OwnedFd,
    /// As [`Frozen::relay`].
    pub(super) server: Option<OwnedFd>,
}

/// What one process leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Estate {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) parcels: Vec<Parcel>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format: u32,
    connections: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    frozen: Frozen,
    /// The kernel's own numbers of the sockets, which stay the same wherever they go.
    client: u64,
    server: Option<u64>,
}

/// Gives everything to the service manager; how many connections.
pub(super) async fn leave(
    manager: &ServiceManager,
    listeners: &[TcpListener],
    parcels: Vec<Parcel>,
) -> io::Result<usize> {
    let count = parcels.len();
    let mut legs = Vec::with_capacity(2 * count);
    let mut connections = Vec::with_capacity(count);
    for Parcel {
        frozen,
        client,
        server,
    } in parcels
    {
        let cookie = |socket: &OwnedFd| SockRef::from(socket).cookie();
        connections.push(Entry {
            frozen,
            client: cookie(&client)?,
            server: server.as_ref().map(cookie).transpose()?,
        });
        legs.extend([client].into_iter().chain(server));
    }
    let state = State {
        format: FORMAT,
        connections,
    };
    let mut file = File::from(rustix::fs::memfd_create(
        "penstock",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.write_all(&serde_json::to_vec(&state)?)?;
    let listeners: Vec<OwnedFd> = listeners
        .iter()
        .map(|listener| listener.as_fd().try_clone_to_owned())
        .collect::<io::Result<_>>()?;
    manager.keep(LISTENER, &listeners)?;
    manager.keep(LEGS, &pack(&legs)?)?;
    // Last: without it, the rest is nothing.
    manager.keep(STATE, &[file.into()])?;
    manager.settle().await?;
    Ok(count)
}

/// Makes sense of what was kept, and has the store forget it. What makes none is closed.
pub(super) fn inherit(way: &Way, kept: Vec<Kept>) -> Estate {
    let mut estate = Estate::default();
    if kept.is_empty() {
        return estate;
    }
    if let Some(manager) = ServiceManager::from_environment() {
        for name in [LISTENER, LEGS, STATE] {
            manager.forget(name);
        }
    }
    let mut legs = HashMap::new();
    let mut states = Vec::new();
    for Kept { name, descriptor } in kept {
        match name.as_str() {
            LISTENER => {
                let listener = TcpListener::from(descriptor);
                if way.is_listener(&listener) {
                    estate.listeners.push(listener);
                }
            }
            LEGS => {
                for leg in unpack(&descriptor) {
                    if let Ok(cookie) = SockRef::from(&leg).cookie() {
                        legs.insert(cookie, leg);
                    }
                }
            }
            STATE => states.push(descriptor),
            other => tracing::warn!(name = other, "a descriptor that nobody of us stored is closed"),
        }
    }
    for state in states {
        match read(File::from(state)) {
            Ok(state) => {
                for entry in state.connections {
                    let sockets = (
                        legs.remove(&entry.client),
                        entry.server.map(|server| legs.remove(&server)),
                    );
                    let (client, server) = match sockets {
                        (Some(client), None) => (client, None),
                        (Some(client), Some(Some(server))) => (client, Some(server)),
                        // A socket that is lost: the other is closed.
                        _ => continue,
                    };
                    let fits = server.is_some() == entry.frozen.relay.is_some();
                    if fits {
                        estate.parcels.push(Parcel {
                            frozen: entry.frozen,
                            client,
                            server,
                        });
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "what the agent before left of inspected connections is unusable")
            }
        }
    }
    for orphan in legs.into_values() {
        let _ = SockRef::from(&orphan).set_linger(Some(std::time::Duration::ZERO));
    }
    estate
}

fn read(mut file: File) -> io::Result<State> {
    let length = file.metadata()?.len();
    if length > STATE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{length} bytes of state, at most {STATE_BYTES_MAX} are read"
        )));
    }
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(STATE_BYTES_MAX).read_to_end(&mut bytes)?;
    let state: State = serde_json::from_slice(&bytes)?;
    if state.format != FORMAT {
        return Err(io::Error::other(format!(
            "format {}, this agent knows {FORMAT}",
            state.format
        )));
    }
    Ok(state)
}

/// A copy of a socket, to be handed over while the original stands still.
pub(super) fn copy(socket: &impl AsFd) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

/// A socket that came back, for this thread's run time.
pub(super) fn stream(socket: OwnedFd) -> io::Result<tokio::net::TcpStream> {
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}
