//! Blocks of connections: a source span, a destination span, a transport and a span of ports.
//!
//! Blocks are what the kernel's maps hold. Two blocks of one interval map must not overlap (the kernel refuses or
//! mis-sorts them), so [`Block::minus`] cuts the part out that an earlier block already covers.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An address of one family, as a number that has neighbours.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display {
    /// `4` or `6`: the suffix of the family's maps.
    const FAMILY: char;
    /// The next higher address, unless this is the last.
    fn next(self) -> Option<Self>;
    /// The next lower address, unless this is the first.
    fn previous(self) -> Option<Self>;
    /// First and last address of a network of this family.
    fn span(network: IpNet) -> Option<Span<Self>>;
    /// The prefix length of a span that is a network.
    fn prefix_length(network: Span<Self>) -> u8;
    /// The network of this prefix length that holds the address.
    fn enclosing(self, length: u8) -> Span<Self>;
    /// The address's bytes in network order, appended.
    fn put(self, bytes: &mut Vec<u8>);
}

impl Address for Ipv4Addr {
    const FAMILY: char = '4';
    fn next(self) -> Option<Self> {
        self.to_bits().checked_add(1).map(Self::from_bits)
    }
    fn previous(self) -> Option<Self> {
        self.to_bits().checked_sub(1).map(Self::from_bits)
    }
    fn span(network: IpNet) -> Option<Span<Self>> {
        match network {
            IpNet::V4(net) => Some(Span {
                first: net.network(),
                last: net.broadcast(),
            }),
            IpNet::V6(_) => None,
        }
    }
    fn prefix_length(network: Span<Self>) -> u8 {
        let differing = network.first.to_bits() ^ network.last.to_bits();
        // At most 128, so it fits.
        differing.leading_zeros() as u8
    }
    fn enclosing(self, length: u8) -> Span<Self> {
        let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let bits = self.to_bits();
        Span {
            first: Self::from_bits(bits & !host),
            last: Self::from_bits(bits | host),
        }
    }
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.octets());
    }
}

impl Address for Ipv6Addr {
    const FAMILY: char = '6';
    fn next(self) -> Option<Self> {
        self.to_bits().checked_add(1).map(Self::from_bits)
    }
    fn previous(self) -> Option<Self> {
        self.to_bits().checked_sub(1).map(Self::from_bits)
    }
    fn span(network: IpNet) -> Option<Span<Self>> {
        match network {
            IpNet::V6(net) => Some(Span {
                first: net.network(),
                last: net.broadcast(),
            }),
            IpNet::V4(_) => None,
        }
    }
    fn prefix_length(network: Span<Self>) -> u8 {
        let differing = network.first.to_bits() ^ network.last.to_bits();
        // At most 128, so it fits.
        differing.leading_zeros() as u8
    }
    fn enclosing(self, length: u8) -> Span<Self> {
        let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let bits = self.to_bits();
        Span {
            first: Self::from_bits(bits & !host),
            last: Self::from_bits(bits | host),
        }
    }
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.octets());
    }
}

/// Everything from `first` to `last`, both included; `first` is never above `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span<T> {
    /// Lowest.
    pub first: T,
    /// Highest.
    pub last: T,
}

impl<T: Copy + Ord> Span<T> {
    /// Exactly one.
    pub fn one(value: T) -> Self {
        Self {
            first: value,
            last: value,
        }
    }

    /// Whether it holds exactly one.
    pub fn is_one(self) -> bool {
        self.first == self.last
    }

    /// What both hold, if anything.
    pub fn meet(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }
}

impl<T: fmt::Display + PartialEq> fmt::Display for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// What a block's connections are carried by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// TCP, with destination ports.
    Tcp,
    /// UDP, with destination ports.
    Udp,
    /// Echo of ICMP or ICMPv6; it has no ports, the block's are 0.
    Echo,
}

/// A set of connections, as a product of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block<A> {
    /// Who opens them.
    pub source: Span<A>,
    /// To whom.
    pub destination: Span<A>,
    /// By what.
    pub carrier: Carrier,
    /// To which ports.
    pub ports: Span<u16>,
}

impl<A: Address> Block<A> {
    /// Whether it is one tuple, which the exact maps hold.
    pub fn is_exact(&self) -> bool {
        self.source.is_one() && self.destination.is_one() && self.ports.is_one()
    }

    /// Whether some connection lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.meet(other).is_some()
    }

    /// The connections that lie in both, if any do.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        if self.carrier != other.carrier {
            return None;
        }
        Some(Self {
            source: self.source.meet(other.source)?,
            destination: self.destination.meet(other.destination)?,
            carrier: self.carrier,
            ports: self.ports.meet(other.ports)?,
        })
    }

    /// Appends to `rest` the blocks that together hold what `self` holds and `other` does not: at most six,
    /// disjoint.
    pub fn minus(self, other: &Self, rest: &mut Vec<Self>) {
        let Some(Self {
            source,
            destination,
            ports,
            ..
        }) = self.meet(other)
        else {
            rest.push(self);
            return;
        };
        for outside in around(self.source, source, A::previous, A::next) {
            rest.push(Self {
                source: outside,
                ..self
            });
        }
        for outside in around(self.destination, destination, A::previous, A::next) {
            rest.push(Self {
                source,
                destination: outside,
                ..self
            });
        }
        for outside in around(self.ports, ports, |p| p.checked_sub(1), |p| p.checked_add(1)) {
            rest.push(Self {
                source,
                destination,
                ports: outside,
                ..self
            });
        }
    }
}

/// What of `whole` lies below and above `part`, which lies within it.
fn around<T: Copy + Ord>(
    whole: Span<T>,
    part: Span<T>,
    previous: impl Fn(T) -> Option<T>,
    next: impl Fn(T) -> Option<T>,
) -> impl Iterator<Item = Span<T>> {
    let below = previous(part.first).filter(|last| *last >= whole.first);
    let above = next(part.last).filter(|first| *first <= whole.last);
    let below = below.map(|last| Span {
        first: whole.first,
        last,
    });
    let above = above.map(|first| Span {
        first,
        last: whole.last,
    });
    below.into_iter().chain(above)
}
