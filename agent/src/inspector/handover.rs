//! Inspected connections across a planned restart: their sockets and their state, from one process to the next.
//!
//! The sockets of listeners and legs, and one file in memory with the state of all connections, are kept by the service
//! manager between the two. While nobody carries them, the kernel acknowledges and buffers what the peers send: they
//! see a pause, and nothing is lost.
//!
//! What comes back is not trusted blindly: state of another format, sockets that are not ours, and connections
//! that the policy then in force does not permit, or that cannot be thawed, are reset.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use penstock_inspect::connection::Sender;
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::socket::Redirect;
use crate::service_manager::{ServiceManager, StoredDescriptor, pack, unpack};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// How it ends.
const END: &[u8] = b"]}";
/// State beyond this is not handed over: of connections that have more, the largest are reset.
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

    pub(super) fn of_mut(&mut self, side: Sender) -> &mut T {
        match side {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }
}

/// A connection that nobody carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrozenConnection {
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
    /// To which side the end of the stream was passed on.
    pub(super) finished: Each<bool>,
}

/// A frozen connection with its sockets.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) frozen: FrozenConnection,
    pub(super) client: OwnedFd,
    /// As [`FrozenConnection::relay`].
    pub(super) server: Option<OwnedFd>,
}

/// What one process leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Estate {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) parcels: Vec<Parcel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HandoverState {
    format: u32,
    connections: Vec<HandoverEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HandoverEntry {
    frozen: FrozenConnection,
    /// The kernel's own numbers of the sockets, which stay the same wherever they go.
    client: u64,
    server: Option<u64>,
}

/// Gives everything to the service manager that the next process will read; how many connections.
pub(super) async fn leave(
    manager: &ServiceManager,
    listeners: &[TcpListener],
    parcels: Vec<Parcel>,
) -> io::Result<usize> {
    let (state, legs) = pack_up(parcels, STATE_BYTES_MAX)?;
    let count = state.count;
    let mut file = File::from(rustix::fs::memfd_create(
        "penstock",
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.write_all(&state.bytes)?;
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

/// The state of all connections, and their sockets. Where it is more than `most` bytes, the largest are left out, and reset.
fn pack_up(parcels: Vec<Parcel>, most: u64) -> io::Result<(PackedState, Vec<OwnedFd>)> {
    let mut entries = Vec::with_capacity(parcels.len());
    for Parcel {
        frozen,
        client,
        server,
    } in parcels
    {
        let cookie = |socket: &OwnedFd| SockRef::from(socket).cookie();
        let entry = HandoverEntry {
            frozen,
            client: cookie(&client)?,
            server: server.as_ref().map(cookie).transpose()?,
        };
        let text = serde_json::to_vec(&entry)?;
        entries.push((text, entry.frozen.client, [Some(client), server]));
    }
    entries.sort_by_key(|(text, ..)| text.len());
    let mut bytes = format!("{{\"format\":{FORMAT},\"connections\":[").into_bytes();
    let most = usize::try_from(most)
        .unwrap_or(usize::MAX)
        .saturating_sub(END.len());
    let (mut legs, mut count) = (Vec::with_capacity(2 * entries.len()), 0);
    for (text, client, sockets) in entries {
        let sockets = sockets.into_iter().flatten();
        if bytes.len() + text.len() + 1 > most {
            let held = text.len();
            tracing::error!(%client, held, "the state of all inspected connections is too large to be handed over: this one is reset");
            sockets.for_each(|socket| reset_on_close(&socket));
            continue;
        }
        if count > 0 {
            bytes.push(b',');
        }
        bytes.extend(text);
        legs.extend(sockets);
        count += 1;
    }
    bytes.extend(END);
    Ok((PackedState { bytes, count }, legs))
}

/// The state as it is written, and of how many connections.
struct PackedState {
    bytes: Vec<u8>,
    count: usize,
}

fn reset_on_close(socket: &OwnedFd) {
    let _ = SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
}

/// Makes sense of what was kept, and has the store forget it. What makes none is closed.
pub(super) fn inherit(way: &Redirect, kept: Vec<StoredDescriptor>) -> Estate {
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
    for StoredDescriptor { name, descriptor } in kept {
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
            other => tracing::warn!(
                name = other,
                "a descriptor that the agent did not store is closed"
            ),
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
                tracing::error!(%error, "the inspected connections that the previous agent left cannot be taken over")
            }
        }
    }
    for orphan in legs.into_values() {
        reset_on_close(&orphan);
    }
    estate
}

fn read(mut file: File) -> io::Result<HandoverState> {
    let length = file.metadata()?.len();
    if length > STATE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{length} bytes of state, at most {STATE_BYTES_MAX} are read"
        )));
    }
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(STATE_BYTES_MAX).read_to_end(&mut bytes)?;
    let state: HandoverState = serde_json::from_slice(&bytes)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn of_more_state_than_is_handed_over_the_largest_connections_are_left_out_and_not_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (mut peers, mut others) = (Vec::new(), Vec::new());
        let parcels = [10, 50_000, 20].map(|bytes| {
            let client = TcpStream::connect(at).unwrap();
            let server = TcpStream::connect(at).unwrap();
            let relay = FrozenRelay {
                connection: None,
                backlog: Each {
                    client: vec![0; bytes],
                    server: Vec::new(),
                },
                over: Each::default(),
                finished: Each::default(),
            };
            let frozen = FrozenConnection {
                client: client.local_addr().unwrap(),
                server: at,
                relay: Some(relay),
            };
            peers.push(listener.accept().unwrap().0);
            others.push(listener.accept().unwrap());
            Parcel {
                frozen,
                client: client.into(),
                server: Some(server.into()),
            }
        });
        let (packed, legs) = pack_up(parcels.into(), 10_000).unwrap();
        assert_eq!((packed.count, legs.len()), (2, 4));
        let state: HandoverState = serde_json::from_slice(&packed.bytes).unwrap();
        let held = |entry: &HandoverEntry| {
            entry
                .frozen
                .relay
                .as_ref()
                .map(|relay| relay.backlog.client.len())
        };
        assert_eq!(
            state.connections.iter().filter_map(held).collect::<Vec<_>>(),
            [10, 20]
        );
        let read: Vec<_> = peers
            .iter_mut()
            .map(|peer| {
                peer.set_nonblocking(true).unwrap();
                peer.read(&mut [0; 1]).unwrap_err().kind()
            })
            .collect();
        let (stands, reset) = (io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionReset);
        assert_eq!(read, [stands, reset, stands]);
    }

    #[test]
    fn what_was_left_when_the_form_was_made_is_read_and_left_the_same_today() {
        let entries = [
            HandoverEntry {
                frozen: FrozenConnection {
                    client: "10.20.1.21:40000".parse().unwrap(),
                    server: "[fd00::7]:502".parse().unwrap(),
                    relay: Some(FrozenRelay {
                        connection: Some("{}".to_owned()),
                        backlog: Each {
                            client: vec![1],
                            server: Vec::new(),
                        },
                        over: Each {
                            client: true,
                            server: false,
                        },
                        finished: Each::default(),
                    }),
                },
                client: 11,
                server: Some(12),
            },
            HandoverEntry {
                frozen: FrozenConnection {
                    client: "10.20.1.21:40001".parse().unwrap(),
                    server: "10.20.4.7:502".parse().unwrap(),
                    relay: None,
                },
                client: 13,
                server: None,
            },
        ];
        let (empty, _) = pack_up(Vec::new(), STATE_BYTES_MAX).unwrap();
        let begin = empty.bytes.strip_suffix(END).unwrap();
        let entries = entries
            .map(|entry| serde_json::to_vec(&entry).unwrap())
            .join(&b',');
        let written = [begin, entries.as_slice(), END].concat();
        let kept = crate::fixture::kept("handover-1.hex", &written);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&kept).unwrap();
        let found = read(file).unwrap();
        let found: Vec<Vec<u8>> = found
            .connections
            .iter()
            .map(|entry| serde_json::to_vec(entry).unwrap())
            .collect();
        assert_eq!(found.join(&b','), entries);
    }
}
