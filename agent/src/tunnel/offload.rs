//! Many packets of a TCP stream as one frame of the device, both ways. Pure.
//!
//! The kernel gives what a stream has ready in one piece of up to 64 KiB, which is divided here as a network card would, and takes such a piece back: what
//! a packet costs in calls and in the kernel's own way through its rules is paid once for some forty. In front of each frame stands `virtio_net_hdr`
//! (linux/virtio_net.h).
//!
//! Only packets that are in order, of the same stream and alike but for their payload become one, and only with checksums that were right: whoever
//! computes a new one vouches for nothing that came damaged.

/// Bytes of `virtio_net_hdr`.
pub(super) const HEAD_BYTES: usize = 10;
/// The largest frame, with its head.
pub(super) const FRAME_BYTES_MAX: usize = HEAD_BYTES + PACKET_BYTES_MAX;

const PROTOCOL_TCP: u8 = 6;
const PACKET_BYTES_MAX: usize = 65_535;
const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
/// Beside the kind: the stream marks congestion.
const MARKED: u8 = 0x80;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;
/// Of a TCP header: where its flags and its checksum stand.
const FLAGS_AT: usize = 13;
const CHECKSUM_AT: usize = 16;

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn put_word(bytes: &mut [u8], at: usize, word: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = word.to_be_bytes();
    Some(())
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The sum of a checksum, before it is folded.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_be_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    whole + u64::from(u32::from_be_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or_default()
}

/// Where the parts of a TCP packet stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of both headers.
    head: usize,
    is_v6: bool,
}

impl Shape {
    fn of(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let (ip, is_v6, carried) = match first >> 4 {
            4 => (usize::from(first & 15) * 4, false, *packet.get(9)?),
            6 => (40, true, *packet.get(6)?),
            _ => return None,
        };
        let tcp = usize::from(packet.get(ip + 12)? >> 4) * 4;
        let head = ip + tcp;
        let fits = carried == PROTOCOL_TCP && ip >= 20 && tcp >= 20 && packet.len() >= head;
        fits.then_some(Self { ip, head, is_v6 })
    }

    /// The sum of what a TCP checksum covers beside the segment, which has so many bytes.
    fn pseudo(self, packet: &[u8], segment: usize) -> Option<u64> {
        let addresses = if self.is_v6 {
            packet.get(8..40)?
        } else {
            packet.get(12..20)?
        };
        Some(sum(addresses) + u64::from(PROTOCOL_TCP) + segment as u64)
    }

    /// Sets lengths and the IP header's checksum as of the bytes that are there.
    fn measure(self, packet: &mut [u8]) -> Option<()> {
        let length = packet.len();
        if self.is_v6 {
            return put_word(packet, 4, u16::try_from(length.checked_sub(40)?).ok()?);
        }
        put_word(packet, 2, u16::try_from(length).ok()?)?;
        put_word(packet, 10, 0)?;
        let checksum = !fold(sum(packet.get(..self.ip)?));
        put_word(packet, 10, checksum)
    }
}

/// Gives each packet of a frame as the kernel left it in the device; `None`: it is no frame, and the rest of it is lost.
pub(super) fn divide(frame: &mut [u8], mut each: impl FnMut(&[u8])) -> Option<()> {
    let (head, packet) = frame.split_at_mut_checked(HEAD_BYTES)?;
    let [flags, kind, _, _, size @ ..] = head.first_chunk::<HEAD_BYTES>()?;
    let [size, start, offset] = [0, 2, 4].map(|at| {
        let bytes = [size.get(at), size.get(at + 1)].map(|byte| byte.copied().unwrap_or_default());
        usize::from(u16::from_ne_bytes(bytes))
    });
    match kind & !MARKED {
        0 if flags & NEEDS_CHECKSUM == 0 => each(packet),
        0 => {
            // What is there is the sum of the addresses already.
            let checksum = match !fold(sum(packet.get(start..)?)) {
                // Zero stands for none in UDP.
                0 => 0xffff,
                checksum => checksum,
            };
            put_word(packet, start + offset, checksum)?;
            each(packet);
        }
        TCP4 | TCP6 if size > 0 => divide_stream(packet, size, each)?,
        _ => return None,
    }
    Some(())
}

fn divide_stream(packet: &[u8], size: usize, mut each: impl FnMut(&[u8])) -> Option<()> {
    let shape = Shape::of(packet)?;
    let (head, payload) = packet.split_at_checked(shape.head)?;
    let (flags, sequence) = (*head.get(shape.ip + FLAGS_AT)?, number(head, shape.ip + 4)?);
    let identification = word(head, 4)?;
    let count = payload.len().div_ceil(size);
    let mut segment = Vec::with_capacity(shape.head + size);
    for (place, part) in payload.chunks(size).enumerate() {
        segment.clear();
        segment.extend_from_slice(head);
        segment.extend_from_slice(part);
        let at = u32::try_from(place * size).ok()?;
        *segment.get_mut(shape.ip + 4..)?.first_chunk_mut()? = sequence.wrapping_add(at).to_be_bytes();
        let mut own = flags;
        if place + 1 < count {
            own &= !(FIN | PSH);
        }
        if place > 0 {
            own &= !CWR;
        }
        *segment.get_mut(shape.ip + FLAGS_AT)? = own;
        if !shape.is_v6 {
            let number = u16::try_from(place).ok()?;
            put_word(&mut segment, 4, identification.wrapping_add(number))?;
        }
        shape.measure(&mut segment)?;
        put_word(&mut segment, shape.ip + CHECKSUM_AT, 0)?;
        let tcp = segment.get(shape.ip..)?;
        let checksum = !fold(shape.pseudo(&segment, tcp.len())? + sum(tcp));
        put_word(&mut segment, shape.ip + CHECKSUM_AT, checksum)?;
        each(&segment);
    }
    Some(())
}

/// A packet that may begin a frame of several, or go on one.
struct Candidate {
    shape: Shape,
    sequence: u32,
    payload: usize,
    pushes: bool,
}

impl Candidate {
    fn of(packet: &[u8]) -> Option<Self> {
        let shape = Shape::of(packet)?;
        let stated = if shape.is_v6 {
            usize::from(word(packet, 4)?) + 40
        } else {
            // Whole, not to be divided, so that its number is free; and without options.
            let alone = shape.ip == 20 && word(packet, 6)? == 0x4000;
            alone.then_some(usize::from(word(packet, 2)?))?
        };
        let flags = *packet.get(shape.ip + FLAGS_AT)?;
        let payload = packet.len().checked_sub(shape.head)?;
        let tcp = packet.get(shape.ip..)?;
        let right = fold(shape.pseudo(packet, tcp.len())? + sum(tcp)) == 0xffff
            && (shape.is_v6 || fold(sum(packet.get(..shape.ip)?)) == 0xffff);
        let fits = stated == packet.len() && flags & !PSH == ACK && payload > 0 && right;
        fits.then_some(Self {
            shape,
            sequence: number(packet, shape.ip + 4)?,
            payload,
            pushes: flags & PSH != 0,
        })
    }
}

/// What of two packets of a stream has to be the same: all of their headers but lengths, numbers and checksums.
fn alike(one: &[u8], other: &[u8], shape: Shape) -> bool {
    let same = |from: usize, to: usize| {
        let [one, other] = [one, other].map(|packet| packet.get(from..to));
        one.is_some() && one == other
    };
    let ip = if shape.is_v6 {
        same(0, 4) && same(6, 40)
    } else {
        same(0, 2) && same(6, 10) && same(12, 20)
    };
    let tcp = shape.ip;
    // Ports; acknowledgement and length; window; options. Of the flags, only PSH may differ.
    ip && same(tcp, tcp + 4)
        && same(tcp + 8, tcp + FLAGS_AT)
        && same(tcp + 14, tcp + CHECKSUM_AT)
        && same(tcp + 18, shape.head)
}

/// What a frame of several packets knows of them.
#[derive(Debug, Clone, Copy)]
struct Run {
    shape: Shape,
    /// Payload of all packets but the last.
    size: usize,
    /// What the next one begins with.
    next: u32,
    count: usize,
    is_over: bool,
}

/// Puts packets together to frames.
#[derive(Debug)]
pub(super) struct Joined {
    /// Head and packet; empty: none.
    frame: Vec<u8>,
    run: Option<Run>,
    /// Packets in it.
    count: usize,
}

impl Default for Joined {
    fn default() -> Self {
        Self {
            frame: Vec::with_capacity(FRAME_BYTES_MAX),
            run: None,
            count: 0,
        }
    }
}

impl Joined {
    /// Takes the next packet. A frame that it does not belong to goes to `send` before, with how many packets it has.
    pub(super) fn take(&mut self, packet: &[u8], mut send: impl FnMut(&[u8], usize)) {
        let candidate = Candidate::of(packet);
        if let (Some(run), Some(candidate)) = (&mut self.run, &candidate)
            && self
                .frame
                .get(HEAD_BYTES..)
                .is_some_and(|first| run.goes_on(first, packet, candidate))
        {
            self.frame
                .extend_from_slice(packet.get(run.shape.head..).unwrap_or_default());
            run.add(candidate);
            self.count += 1;
            if candidate.pushes
                && let Some(flags) = self.frame.get_mut(HEAD_BYTES + run.shape.ip + FLAGS_AT)
            {
                *flags |= PSH;
            }
            return;
        }
        self.flush(&mut send);
        self.frame.resize(HEAD_BYTES, 0);
        self.frame.extend_from_slice(packet);
        self.count = 1;
        self.run = candidate.map(|candidate| Run {
            shape: candidate.shape,
            size: candidate.payload,
            next: candidate
                .sequence
                .wrapping_add(u32::try_from(candidate.payload).unwrap_or_default()),
            count: 1,
            is_over: candidate.pushes,
        });
    }

    /// Gives what is there to `send`.
    pub(super) fn flush(&mut self, mut send: impl FnMut(&[u8], usize)) {
        if self.frame.is_empty() {
            return;
        }
        let several = self.run.filter(|run| run.count > 1);
        if several.is_none_or(|run| finish(&mut self.frame, run).is_some()) {
            send(&self.frame, self.count);
        }
        self.frame.clear();
        self.run = None;
        self.count = 0;
    }
}

impl Run {
    fn goes_on(&self, first: &[u8], packet: &[u8], candidate: &Candidate) -> bool {
        !self.is_over
            && self.shape == candidate.shape
            && self.next == candidate.sequence
            && candidate.payload <= self.size
            && first.len() + candidate.payload <= PACKET_BYTES_MAX
            && alike(first, packet, self.shape)
    }

    fn add(&mut self, candidate: &Candidate) {
        let length = u32::try_from(candidate.payload).unwrap_or_default();
        self.next = self.next.wrapping_add(length);
        self.count += 1;
        self.is_over = candidate.pushes || candidate.payload < self.size;
    }
}

/// Makes a frame of several packets what the kernel divides again.
fn finish(frame: &mut [u8], run: Run) -> Option<()> {
    let (head, packet) = frame.split_at_mut_checked(HEAD_BYTES)?;
    let shape = run.shape;
    shape.measure(packet)?;
    // The sum of what is beside the segment, which the kernel or a card adds the rest to.
    let beside = fold(shape.pseudo(packet, packet.len().checked_sub(shape.ip)?)?);
    put_word(packet, shape.ip + CHECKSUM_AT, beside)?;
    let [length, size, start, offset] = [shape.head, run.size, shape.ip, CHECKSUM_AT]
        .map(|value| u16::try_from(value).unwrap_or_default().to_ne_bytes());
    let kind = if shape.is_v6 { TCP6 } else { TCP4 };
    let whole = [[NEEDS_CHECKSUM, kind], length, size, start, offset];
    head.copy_from_slice(whole.as_flattened());
    Some(())
}

#[cfg(test)]
mod tests;
