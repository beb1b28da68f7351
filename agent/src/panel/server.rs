//! The thread that answers panels: a listener and at most sixteen connections, each with two small buffers of its own.
//!
//! A connection ends when its client says what is no Modbus, is silent for a minute, or takes no answer. A client is answered at
//! most two hundred times a second on each, however fast it asks: the gateway's processors are for the plant.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_inspect::modbus::frame::{self, ADU_BYTES_MAX};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::PanelSettings;
use super::answer::Answer;
use super::registers::Image;
use super::seats::Seats;
use crate::zones::GatewayHealth;

/// How long a client may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client may take none of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two answers of one connection, at least.
const PACE: Duration = Duration::from_millis(5);
/// Pause after a connection that could not be accepted: the process may be short of descriptors for a moment.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Why panels find nobody.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    /// No thread, or nothing for it to wait by.
    #[error("the thread that answers panels cannot be started")]
    Thread(#[source] io::Error),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The port needs a right.
    #[error(
        "cannot listen on {0}: ports below 1024 need penstock-agent-panel.conf beside the unit (it adds CAP_NET_BIND_SERVICE), or \
         choose a port from 1024 on"
    )]
    NotPermitted(SocketAddr),
}

/// What all connections share.
struct Shared {
    image: watch::Receiver<Arc<Image>>,
    seats: Mutex<Seats>,
}

/// Answers until `stop` is cancelled, on this thread.
pub(super) fn run(
    settings: PanelSettings,
    health: watch::Receiver<Option<Arc<GatewayHealth>>>,
    listens: oneshot::Sender<()>,
    stop: CancellationToken,
) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServerError::Thread)?;
    runtime.block_on(async {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            served = listen(settings, health, listens) => served,
        }
    })
}

async fn listen(
    settings: PanelSettings,
    mut health: watch::Receiver<Option<Arc<GatewayHealth>>>,
    listens: oneshot::Sender<()>,
) -> Result<(), ServerError> {
    let address = settings.listen;
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ServerError::NotPermitted(address),
        _ => ServerError::Listen { address, source },
    })?;
    // Nobody may wait for it any more.
    let _ = listens.send(());
    let (image_in, image) = watch::channel(Arc::new(Image::unknown()));
    let order = settings.zones;
    tokio::spawn(async move {
        loop {
            if let Some(health) = health.borrow_and_update().clone() {
                image_in.send_replace(Arc::new(Image::of(&health, &order)));
            }
            if health.changed().await.is_err() {
                return;
            }
        }
    });
    let shared = Arc::new(Shared {
        image,
        seats: Mutex::new(Seats::for_clients(settings.clients.len())),
    });
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a panel's connection was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let client = peer.ip().to_canonical();
        if !settings.clients.contains(&client) {
            // The kernel lets nobody else in: it was asked before a policy was in force, or by this machine itself.
            tracing::debug!(%client, "not a panel of the configuration");
            continue;
        }
        if let Some((seat, end)) = shared.seats().take(client, Instant::now()) {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let ended = tokio::select! {
                    () = end.cancelled() => Ok(()),
                    ended = converse(stream, &shared, seat) => ended,
                };
                if let Err(error) = ended {
                    tracing::debug!(%client, %error, "a panel's connection ended");
                }
                shared.seats().leave(seat);
            });
        }
    }
}

impl Shared {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one client's requests in their order, until it leaves or errs.
async fn converse(mut stream: TcpStream, shared: &Shared, seat: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held = [0; ADU_BYTES_MAX];
    let mut filled = 0;
    let mut answer = Answer::new();
    loop {
        while let Some(request) = frame::next(held.get(..filled).unwrap_or_default())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        {
            let image = shared.image.borrow().clone();
            let said = answer.write(&request, &image);
            let taken = request.adu_bytes;
            shared.seats().heard(seat, Instant::now());
            tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(said)).await??;
            held.copy_within(taken..filled, 0);
            filled -= taken;
            tokio::time::sleep(PACE).await;
        }
        // A whole request has room, so there is some.
        let room = held.get_mut(filled..).unwrap_or_default();
        let read = tokio::time::timeout(IDLE, stream.read(room)).await??;
        if read == 0 {
            return Ok(());
        }
        filled += read;
    }
}
