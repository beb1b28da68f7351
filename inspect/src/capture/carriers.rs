//! What carries IP in a captured packet, by the link type: Ethernet with its tags, cooked packets, PPP, raw IP.
//!
//! Read are VLAN and QinQ tags, HSR tags (IEC 62439-3; PRP puts its own behind the payload, where it does no harm), PPPoE, and MPLS
//! labels before IP or an Ethernet pseudowire with its control word; which of them there were is kept ([`Envelope`]). ERSPAN is opened: a
//! switch has copied the frame in it, and what carries the copy is no traffic of the plant's. Other tunnels inside IP (GRE, IP in IP,
//! VXLAN, ESP) are not: a gateway that stands on their way judges the tunnel.

use etherparse::{EtherType, IpNumber, LaxSlicedPacket};

use super::envelope::{Envelope, Label};
use super::file::Frame;
use super::kinds::{self, FrameKind, NotIp};
use super::link::SkipReason;

/// Tags, labels and frames in one another, at most.
const LAYERS_MAX: usize = 8;

/// What stands before the rest of a packet.
enum Layer {
    Ethernet,
    /// What this number says.
    Type(u16),
    Ppp,
    Mpls,
    Ip,
}

/// The packet from its network layer on.
pub(super) fn network<'a>(frame: &Frame<'a>) -> Result<LaxSlicedPacket<'a>, SkipReason> {
    opened(frame).map(|(packet, _)| packet)
}

/// The same, with the tags and labels that it came in.
pub(super) fn opened<'a>(frame: &Frame<'a>) -> Result<(LaxSlicedPacket<'a>, Envelope), SkipReason> {
    read(frame, true)
}

/// The same of a packet that itself is on its way through a gateway: a copy in it is what it carries, and is not opened.
pub(super) fn on_the_wire<'a>(frame: &Frame<'a>) -> Result<(LaxSlicedPacket<'a>, Envelope), SkipReason> {
    read(frame, false)
}

fn read<'a>(frame: &Frame<'a>, opens_copies: bool) -> Result<(LaxSlicedPacket<'a>, Envelope), SkipReason> {
    let mut envelope = Envelope::default();
    let mut rest = frame.bytes;
    let mut layer = match frame.link_type {
        1 => Layer::Ethernet,
        // BSD loopback: four bytes of address family, and which number means IP is nobody's standard.
        0 | 108 => after(&mut rest, 4, Layer::Ip)?,
        12 | 14 | 101 | 228 | 229 => Layer::Ip,
        9 => Layer::Ppp,
        50 => hdlc(&mut rest)?,
        51 => after(&mut rest, 6, Layer::Ppp)?,
        // Linux cooked packets: the type at the end of the header, or at its beginning.
        113 => {
            let kind = word(rest.get(14..).unwrap_or_default())?;
            after(&mut rest, 16, Layer::Type(kind))?
        }
        276 => {
            let kind = word(rest)?;
            after(&mut rest, 20, Layer::Type(kind))?
        }
        other => return Err(SkipReason::LinkType(other)),
    };
    for _ in 0..LAYERS_MAX {
        layer = match layer {
            Layer::Ip | Layer::Type(0x0800 | 0x86dd) => {
                let packet = match layer {
                    Layer::Type(kind) => LaxSlicedPacket::from_ether_type(EtherType(kind), rest),
                    _ => LaxSlicedPacket::from_ip(rest).map_err(|_| SkipReason::Headers)?,
                };
                let Some(copied) = copied(&packet).filter(|_| opens_copies) else {
                    return Ok((packet, envelope));
                };
                (rest, envelope) = (copied, Envelope::default());
                Layer::Ethernet
            }
            Layer::Ethernet => {
                let kind = word(rest.get(12..).unwrap_or_default())?;
                after(&mut rest, 14, Layer::Type(kind))?
            }
            // VLAN tags; the type of what follows stands behind two bytes.
            Layer::Type(0x8100 | 0x88a8 | 0x9100 | 0x9200) => {
                envelope.tag(word(rest)?);
                let kind = word(rest.get(2..).unwrap_or_default())?;
                after(&mut rest, 4, Layer::Type(kind))?
            }
            // HSR: path and size, sequence number, then the type of what follows.
            Layer::Type(0x892f) => {
                envelope.label(Label::Hsr);
                let kind = word(rest.get(4..).unwrap_or_default())?;
                after(&mut rest, 6, Layer::Type(kind))?
            }
            Layer::Type(0x8864) => {
                envelope.label(Label::PppoE);
                after(&mut rest, 6, Layer::Ppp)?
            }
            Layer::Type(0x8847 | 0x8848) => Layer::Mpls,
            Layer::Type(0x88e5) => return Err(SkipReason::Encapsulated("encrypted by MACsec")),
            Layer::Type(0x0806) => {
                let packet = LaxSlicedPacket::from_ether_type(EtherType(0x0806), rest);
                return Ok((packet, envelope));
            }
            // A length, or what Linux writes into cooked packets for it.
            Layer::Type(0..=1500) => {
                let kind = kinds::of_length(rest).ok_or(SkipReason::Headers)?;
                return Err(SkipReason::NotIp(NotIp { kind, envelope }));
            }
            Layer::Type(kind) => {
                let kind = FrameKind::EtherType(kind);
                return Err(SkipReason::NotIp(NotIp { kind, envelope }));
            }
            Layer::Ppp => match ppp(&mut rest)? {
                PppContent::Next(layer) => layer,
                PppContent::Control(protocol) => {
                    let kind = FrameKind::Ppp(protocol);
                    return Err(SkipReason::NotIp(NotIp { kind, envelope }));
                }
            },
            Layer::Mpls => {
                envelope.label(Label::Mpls);
                mpls(&mut rest)?
            }
        };
    }
    Err(SkipReason::Encapsulated(
        "more nested tags and labels than are read",
    ))
}

/// Skips `bytes`.
fn after<T>(rest: &mut &[u8], bytes: usize, next: T) -> Result<T, SkipReason> {
    *rest = rest.get(bytes..).ok_or(SkipReason::Headers)?;
    Ok(next)
}

/// The 16 bits that begin `bytes`.
fn word(bytes: &[u8]) -> Result<u16, SkipReason> {
    let word = bytes.first_chunk::<2>().ok_or(SkipReason::Headers)?;
    Ok(u16::from_be_bytes(*word))
}

/// PPP in frames like HDLC's, or Cisco's HDLC, which has the type of Ethernet.
fn hdlc(rest: &mut &[u8]) -> Result<Layer, SkipReason> {
    if word(rest)? == 0xff03 {
        return Ok(Layer::Ppp);
    }
    let kind = word(rest.get(2..).unwrap_or_default())?;
    after(rest, 4, Layer::Type(kind))
}

/// The frame in a packet that a switch has sent to who records (ERSPAN, in GRE); `None`: it is none.
///
/// Types I and II have the type of GRE 0x88be; with a sequence number it is II, which has a header of 8 bytes. III has 0x22eb, and 12
/// bytes, 20 where its last bit says so.
fn copied<'a>(packet: &LaxSlicedPacket<'a>) -> Option<&'a [u8]> {
    const GRE: IpNumber = IpNumber::GRE;
    const HAS_SEQUENCE: u16 = 0x1000;
    let payload = packet.ip_payload()?;
    if payload.ip_number != GRE || payload.fragmented {
        return None;
    }
    let flags = word(payload.payload).ok()?;
    let kind = word(payload.payload.get(2..)?).ok()?;
    // A checksum, a key and a sequence number take four bytes each.
    let fields = [0x8000, 0x2000, HAS_SEQUENCE]
        .iter()
        .filter(|bit| flags & **bit != 0);
    let rest = payload.payload.get(4 + 4 * fields.count()..)?;
    match kind {
        0x88be if flags & HAS_SEQUENCE == 0 => Some(rest),
        0x88be => rest.get(8..),
        0x22eb => {
            let longer = rest.get(11)? & 1 == 1;
            rest.get(if longer { 20 } else { 12 }..)
        }
        _ => None,
    }
}

/// What PPP carries.
enum PppContent {
    Next(Layer),
    /// Control of the link, and of what could run over it.
    Control(u16),
}

/// PPP, with or without address and control, and its protocol in one byte or two (RFC 1661, 2; RFC 1662, 3.1).
fn ppp(rest: &mut &[u8]) -> Result<PppContent, SkipReason> {
    if rest.starts_with(&[0xff, 0x03]) {
        after(rest, 2, ())?;
    }
    let first = *rest.first().ok_or(SkipReason::Headers)?;
    // Only the last byte of the number is odd.
    let protocol = match first & 1 {
        1 => after(rest, 1, u16::from(first))?,
        _ => {
            let protocol = word(rest)?;
            after(rest, 2, protocol)?
        }
    };
    match protocol {
        0x0021 | 0x0057 => Ok(PppContent::Next(Layer::Ip)),
        0x0281 | 0x0283 => Ok(PppContent::Next(Layer::Mpls)),
        // Compressed, encrypted, or in several links.
        0x002d | 0x002f | 0x003d | 0x0053 | 0x0055 | 0x00fb | 0x00fd => {
            Err(SkipReason::Encapsulated("compressed, encrypted or split by PPP"))
        }
        control => Ok(PppContent::Control(control)),
    }
}

/// Skips labels up to the one at the bottom (RFC 3032, 2.1).
fn mpls(rest: &mut &[u8]) -> Result<Layer, SkipReason> {
    loop {
        let third = *rest.get(2).ok_or(SkipReason::Headers)?;
        after(rest, 4, ())?;
        if third & 1 == 1 {
            break;
        }
    }
    match rest.first().map(|first| first >> 4) {
        Some(4 | 6) => Ok(Layer::Ip),
        // The control word of a pseudowire (RFC 4385, 3).
        Some(0) => after(rest, 4, Layer::Ethernet),
        _ => Err(SkipReason::Encapsulated("behind MPLS labels, and not IP")),
    }
}
