//! Capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).

use std::time::Duration;

/// The largest packet that is believed; libpcap's own limit.
const FRAME_BYTES_MAX: usize = 262_144;
/// The largest block of a pcapng file that is believed. A packet is the largest thing that is read of one; keys and names can be longer.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// One captured packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Number in the file, from 1.
    pub number: u64,
    /// Link type (LINKTYPE registry).
    pub link_type: u16,
    /// When it was seen, since 1970; zero where the file does not say.
    pub at: Duration,
    /// What was kept of it.
    pub bytes: &'a [u8],
    /// How long it was on the wire.
    pub wire_bytes: usize,
}

/// Why a file cannot be read, or not further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Not a capture file.
    #[error("this is not a pcap or pcapng file: it begins with {0:#010x}")]
    Format(u32),
    /// The file ends within its own header.
    #[error("the file ends within its header: nothing of what was recorded is there")]
    NoHeader,
    /// The file ends within a packet; those before it are whole.
    #[error("the file ends within packet {0}: it was cut short, or is still being written")]
    CutShort(u64),
    /// A length in the file that cannot be.
    #[error("packet {number} has an impossible length of {bytes} bytes: the file is damaged from there on")]
    Damaged {
        /// The packet.
        number: u64,
        /// Its length as the file says.
        bytes: usize,
    },
}

/// The packets of a file, in its order. Ends after the first error.
#[derive(Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    place: FilePlace,
    ended: bool,
}

/// What a file has said up to some place in it, from which more of its bytes go on.
#[derive(Debug)]
pub struct FilePlace {
    number: u64,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Pcap {
        order: Order,
        link_type: u16,
        nanoseconds: bool,
    },
    Ng {
        order: Order,
        interfaces: Vec<Interface>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

/// What a pcapng interface block says.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: u16,
    snap_bytes: usize,
    /// Units per second.
    resolution: u64,
    offset_seconds: u64,
}

const NG_SECTION: u32 = 0x0a0d_0d0a;

impl Order {
    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let field = *bytes.get(at..)?.first_chunk::<4>()?;
        Some(match self {
            Self::Big => u32::from_be_bytes(field),
            Self::Little => u32::from_le_bytes(field),
        })
    }

    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let field = *bytes.get(at..)?.first_chunk::<2>()?;
        Some(match self {
            Self::Big => u16::from_be_bytes(field),
            Self::Little => u16::from_le_bytes(field),
        })
    }

    fn size(self, bytes: &[u8], at: usize) -> Option<usize> {
        self.u32(bytes, at).and_then(|size| usize::try_from(size).ok())
    }
}

impl<'a> Frames<'a> {
    /// Opens a file by its bytes.
    ///
    /// # Errors
    /// The bytes do not begin as a pcap or pcapng file.
    pub fn open(bytes: &'a [u8]) -> Result<Self, CaptureError> {
        if bytes.is_empty() {
            return Err(CaptureError::Empty);
        }
        let magic = Order::Big.u32(bytes, 0).ok_or(CaptureError::NoHeader)?;
        let pcap = |order: Order, nanoseconds: bool| {
            // The high bits of the link type tell about frame check sequences.
            let link_type = order.u32(bytes, 20).ok_or(CaptureError::NoHeader)? & 0xffff;
            Ok(Format::Pcap {
                order,
                link_type: u16::try_from(link_type).unwrap_or(u16::MAX),
                nanoseconds,
            })
        };
        let (format, header_bytes) = match magic {
            0xa1b2_c3d4 => (pcap(Order::Big, false)?, 24),
            0xd4c3_b2a1 => (pcap(Order::Little, false)?, 24),
            0xa1b2_3c4d => (pcap(Order::Big, true)?, 24),
            0x4d3c_b2a1 => (pcap(Order::Little, true)?, 24),
            NG_SECTION => (
                Format::Ng {
                    order: Order::Little,
                    interfaces: Vec::new(),
                },
                0,
            ),
            other => return Err(CaptureError::Format(other)),
        };
        Ok(Self {
            rest: bytes.get(header_bytes..).unwrap_or_default(),
            place: FilePlace { number: 0, format },
            ended: false,
        })
    }

    /// Goes on in a file whose bytes come piece by piece: `bytes` follow those that were gone over. Of a packet that is not whole
    /// yet they say that the file is cut short; with what they have and more, it is read.
    pub fn resume(place: FilePlace, bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            place,
            ended: false,
        }
    }

    /// What the file has said so far, to go on with [`Self::rest_bytes`] of these bytes and more.
    pub fn pause(self) -> FilePlace {
        self.place
    }

    /// Bytes of the file that were not gone over so far.
    pub fn rest_bytes(&self) -> u64 {
        self.rest.len() as u64
    }

    fn damaged(&self, bytes: usize) -> CaptureError {
        CaptureError::Damaged {
            number: self.place.number + 1,
            bytes,
        }
    }

    fn pcap(&mut self, order: Order, link_type: u16, nanoseconds: bool) -> Result<Frame<'a>, CaptureError> {
        let cut = CaptureError::CutShort(self.place.number + 1);
        let field = |at| order.u32(self.rest, at).ok_or(cut);
        let (seconds, fraction) = (field(0)?, field(4)?);
        let (kept, wire) = (
            order.size(self.rest, 8).ok_or(cut)?,
            order.size(self.rest, 12).ok_or(cut)?,
        );
        if kept > FRAME_BYTES_MAX {
            return Err(self.damaged(kept));
        }
        let (bytes, rest) = self
            .rest
            .get(16..)
            .and_then(|rest| rest.split_at_checked(kept))
            .ok_or(cut)?;
        self.rest = rest;
        self.place.number += 1;
        let fraction = if nanoseconds {
            Duration::from_nanos(u64::from(fraction))
        } else {
            Duration::from_micros(u64::from(fraction))
        };
        Ok(Frame {
            number: self.place.number,
            link_type,
            at: Duration::from_secs(u64::from(seconds)) + fraction,
            bytes,
            wire_bytes: wire.max(kept),
        })
    }

    /// Reads blocks until one holds a packet; `None` at the end.
    fn ng(
        &mut self,
        order: &mut Order,
        interfaces: &mut Vec<Interface>,
    ) -> Result<Option<Frame<'a>>, CaptureError> {
        while !self.rest.is_empty() {
            let cut = CaptureError::CutShort(self.place.number + 1);
            let mut block_order = *order;
            let begins = Order::Big.u32(self.rest, 0) == Some(NG_SECTION);
            if begins {
                // A new section may have the other byte order, and has its own interfaces.
                block_order = match Order::Big.u32(self.rest, 8).ok_or(cut)? {
                    0x1a2b_3c4d => Order::Big,
                    0x4d3c_2b1a => Order::Little,
                    other => return Err(CaptureError::Format(other)),
                };
            }
            let kind = block_order.u32(self.rest, 0).ok_or(cut)?;
            let length = block_order.size(self.rest, 4).ok_or(cut)?;
            if !(12..=BLOCK_BYTES_MAX).contains(&length) || length % 4 != 0 {
                return Err(self.damaged(length));
            }
            let (block, rest) = self.rest.split_at_checked(length).ok_or(cut)?;
            if block_order.size(block, length - 4) != Some(length) {
                return Err(self.damaged(length));
            }
            *order = block_order;
            if begins {
                interfaces.clear();
            }
            let body = block.get(8..length - 4).unwrap_or_default();
            let found = match kind {
                1 => {
                    if interfaces.len() >= 4096 {
                        return Err(self.damaged(length));
                    }
                    interfaces.push(interface(*order, body).ok_or(self.damaged(length))?);
                    None
                }
                2 | 3 | 6 => {
                    let found = packet(*order, kind, body, interfaces);
                    Some(found.ok_or(self.damaged(length))?)
                }
                _ => None,
            };
            self.rest = rest;
            if let Some(mut frame) = found {
                self.place.number += 1;
                frame.number = self.place.number;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.rest.is_empty() {
            return None;
        }
        let result = match &mut self.place.format {
            Format::Pcap {
                order,
                link_type,
                nanoseconds,
            } => {
                let (order, link_type, nanoseconds) = (*order, *link_type, *nanoseconds);
                self.pcap(order, link_type, nanoseconds)
            }
            Format::Ng { order, interfaces } => {
                let (mut order, mut interfaces) = (*order, std::mem::take(interfaces));
                let found = self.ng(&mut order, &mut interfaces);
                self.place.format = Format::Ng { order, interfaces };
                match found {
                    Ok(Some(frame)) => Ok(frame),
                    Ok(None) => return None,
                    Err(error) => Err(error),
                }
            }
        };
        self.ended = result.is_err();
        Some(result)
    }
}

/// Interface description block: link type, length limit, resolution and offset of its clock.
fn interface(order: Order, body: &[u8]) -> Option<Interface> {
    let mut found = Interface {
        link_type: order.u16(body, 0)?,
        snap_bytes: order.size(body, 4)?,
        resolution: 1_000_000,
        offset_seconds: 0,
    };
    let mut at = 8;
    while let (Some(code), Some(length)) = (order.u16(body, at), order.u16(body, at + 2)) {
        let value = body.get(at + 4..at + 4 + usize::from(length))?;
        match (code, value) {
            (0, _) => break,
            (9, [resolution]) => {
                let exponent = u32::from(resolution & 0x7f);
                let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
                found.resolution = base.checked_pow(exponent)?;
            }
            (14, value) if value.len() == 8 => {
                let (low, high) = (order.u32(value, 0)?, order.u32(value, 4)?);
                found.offset_seconds = match order {
                    Order::Little => u64::from(high) << 32 | u64::from(low),
                    Order::Big => u64::from(low) << 32 | u64::from(high),
                };
            }
            _ => {}
        }
        at += 4 + usize::from(length).next_multiple_of(4);
    }
    Some(found)
}

/// Enhanced (6), obsolete (2) and simple (3) packet blocks.
fn packet<'a>(order: Order, kind: u32, body: &'a [u8], interfaces: &[Interface]) -> Option<Frame<'a>> {
    let which = match kind {
        6 => order.size(body, 0)?,
        2 => usize::from(order.u16(body, 0)?),
        _ => 0,
    };
    let interface = interfaces.get(which)?;
    let (at, kept, wire, data) = if kind == 3 {
        let wire = order.size(body, 0)?;
        let limit = if interface.snap_bytes == 0 {
            usize::MAX
        } else {
            interface.snap_bytes
        };
        (Duration::ZERO, wire.min(limit), wire, 4_usize)
    } else {
        let units = u64::from(order.u32(body, 4)?) << 32 | u64::from(order.u32(body, 8)?);
        // The offset is signed: in two's complement the sum is the same.
        let seconds = (units / interface.resolution).wrapping_add(interface.offset_seconds);
        let nanoseconds =
            u128::from(units % interface.resolution) * 1_000_000_000 / u128::from(interface.resolution);
        let at = Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
        (at, order.size(body, 12)?, order.size(body, 16)?, 20)
    };
    if kept > FRAME_BYTES_MAX {
        return None;
    }
    Some(Frame {
        number: 0,
        link_type: interface.link_type,
        at,
        bytes: body.get(data..data.checked_add(kept)?)?,
        wire_bytes: wire.max(kept),
    })
}
