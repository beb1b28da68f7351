//! The numbers of nf_tables over netlink, and how the keys of the flows' maps lie in its messages: what writing (`batch`) and
//! reading (`readback`) must agree on.
//!
//! Source: linux/netfilter/nfnetlink.h and nf_tables.h.

use super::netlink::attributes;
use crate::enforce::shape::block::{Address, Block, Carrier};

/// `NFPROTO_INET` and `NFPROTO_BRIDGE`: the families of our tables.
pub(in crate::enforce) const FAMILIES: [u8; 2] = [1, 7];
/// `NFNL_SUBSYS_NFTABLES`.
pub(in crate::enforce) const SUBSYSTEM: u16 = 10 << 8;
/// `NFT_MSG_NEWGEN`: the end of a transaction.
pub(in crate::enforce) const NEW_GENERATION: u16 = SUBSYSTEM | 15;

// `enum nf_tables_msg_types`, `nf_tables_attributes` and so on: linux/netfilter/nf_tables.h.
pub(in crate::enforce) const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(in crate::enforce) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(in crate::enforce) const GET_RULE: u16 = SUBSYSTEM | 7;
pub(in crate::enforce) const GET_SET: u16 = SUBSYSTEM | 10;
pub(in crate::enforce) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
pub(in crate::enforce) const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
pub(in crate::enforce) const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
pub(in crate::enforce) const GET_GENERATION: u16 = SUBSYSTEM | 16;
pub(in crate::enforce) const GET_OBJECT: u16 = SUBSYSTEM | 19;
/// The attribute that names the table, in every kind of object but tables themselves, where it is their own name.
pub(in crate::enforce) const TABLE_ATTRIBUTE: u16 = 1;
pub(in crate::enforce) const SET_NAME: u16 = 2;
pub(in crate::enforce) const SET_FLAGS: u16 = 3;
/// `NFT_SET_EVAL`.
pub(in crate::enforce) const SET_DYNAMIC: u32 = 0x20;
pub(in crate::enforce) const ELEMENTS_SET: u16 = 2;
pub(in crate::enforce) const ELEMENTS_LIST: u16 = 3;
pub(in crate::enforce) const ELEMENT_KEY: u16 = 1;
pub(in crate::enforce) const ELEMENT_DATA: u16 = 2;
pub(in crate::enforce) const ELEMENT_FLAGS: u16 = 3;
pub(in crate::enforce) const ELEMENT_TIMEOUT: u16 = 4;
pub(in crate::enforce) const ELEMENT_KEY_END: u16 = 10;
pub(in crate::enforce) const DATA_VALUE: u16 = 1;
pub(in crate::enforce) const GENERATION_ID: u16 = 1;
pub(in crate::enforce) const CHAIN_NAME: u16 = 3;
pub(in crate::enforce) const CHAIN_USERDATA: u16 = 12;
pub(in crate::enforce) const OBJECT_NAME: u16 = 2;
pub(in crate::enforce) const OBJECT_DATA: u16 = 4;
pub(in crate::enforce) const COUNTER_BYTES: u16 = 1;
pub(in crate::enforce) const COUNTER_PACKETS: u16 = 2;
/// `NLA_F_NESTED`: the value is made of attributes.
pub(in crate::enforce) const NESTED: u16 = 0x8000;
/// `NFTA_LIST_ELEM`.
pub(in crate::enforce) const LIST_ELEMENT: u16 = 1;

/// An element's first and last key as the kernel has them; of an exact one the last is empty.
pub(in crate::enforce) fn keys<A: Address>(block: &Block<A>) -> (Vec<u8>, Vec<u8>) {
    let first = key(block, |span| span.0, block.ports.first);
    if block.is_exact() {
        return (first, Vec::new());
    }
    (first, key(block, |span| span.1, block.ports.last))
}

/// One end's key: each field padded to 4 bytes.
fn key<A: Address>(block: &Block<A>, end: impl Fn((A, A)) -> A, port: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    end((block.source.first, block.source.last)).put(&mut bytes);
    end((block.destination.first, block.destination.last)).put(&mut bytes);
    match block.carrier {
        Carrier::Echo => return bytes,
        Carrier::Tcp => bytes.extend([6, 0, 0, 0]),
        Carrier::Udp => bytes.extend([17, 0, 0, 0]),
    }
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// The value inside a nested `NFTA_DATA_VALUE`.
pub(in crate::enforce) fn inner(value: &[u8]) -> &[u8] {
    attributes(value)
        .find(|(kind, _)| *kind == DATA_VALUE)
        .map_or(&[], |(_, value)| value)
}

/// A name as the kernel wants it: ended by a zero.
pub(in crate::enforce) fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}
