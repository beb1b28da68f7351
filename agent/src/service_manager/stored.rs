//! What a service stores, taken as the service manager takes it: the other end of [`ServiceManager`](super::ServiceManager), for
//! the tests here and for those in `tests/tests/inspected`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::thread::JoinHandle;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::StoredDescriptor;

/// The next message, and the descriptors that came with it.
pub(crate) fn receive(manager: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let mut bytes = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(256))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(manager, &mut text, &mut control, RecvFlags::empty()).unwrap();
    let mut descriptors = Vec::new();
    for message in control.drain() {
        let RecvAncillaryMessage::ScmRights(batch) = message else {
            panic!("something other than descriptors");
        };
        descriptors.extend(batch);
    }
    let message = String::from_utf8_lossy(&bytes[..received.bytes]);
    (message.into_owned(), descriptors)
}

/// All that is stored until the service settles.
pub(crate) fn stored(manager: UnixDatagram) -> JoinHandle<Vec<StoredDescriptor>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        loop {
            let (message, descriptors) = receive(&manager);
            if message == "BARRIER=1" {
                return kept;
            }
            let name = message.strip_prefix("FDSTORE=1\nFDNAME=").unwrap();
            kept.extend(descriptors.into_iter().map(|descriptor| StoredDescriptor {
                name: name.to_owned(),
                descriptor,
            }));
        }
    })
}
