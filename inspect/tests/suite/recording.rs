//! Recordings that a test writes itself, packet by packet, in whatever form.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use etherparse::PacketBuilder;

/// What one side says next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

impl Step {
    /// A Modbus request of unit 1, and its answer.
    pub(crate) fn asked(transaction: u16, request: &[u8], answer: &[u8]) -> [Self; 2] {
        [
            Self::request(transaction, request),
            Self::Server(adu(transaction, answer)),
        ]
    }

    /// A Modbus request that is not answered.
    pub(crate) fn request(transaction: u16, request: &[u8]) -> Self {
        Self::Client(adu(transaction, request))
    }
}

fn adu(transaction: u16, pdu: &[u8]) -> Vec<u8> {
    let [high, low] = transaction.to_be_bytes();
    let length = u8::try_from(pdu.len() + 1).unwrap();
    [&[high, low, 0, 0, 0, length, 1][..], pdu].concat()
}

/// One Ethernet frame.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) at: Duration,
    pub(crate) from_client: bool,
    pub(crate) bytes: Vec<u8>,
}

/// An operation that was answered: who asked whom, what, and which value it wrote.
pub(crate) type Answered = (String, String, String, Option<u32>);

/// Packets, and what is known of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    /// When the next packet is sent.
    pub(crate) at: Duration,
    /// The openings of what follows are not recorded.
    pub(crate) midway: bool,
    pub(crate) packets: Vec<Packet>,
    answered: BTreeSet<Answered>,
    silent: BTreeSet<(String, String)>,
}

impl Recording {
    /// A connection from its opening to its end.
    pub(crate) fn connection(&mut self, client: &str, server: &str, steps: &[Step]) {
        let ends: [SocketAddr; 2] = [client.parse().unwrap(), server.parse().unwrap()];
        let mut sequences = [1000_u32, 5000];
        if !self.midway {
            self.segment(ends, true, (sequences[0] - 1, None), 'S', &[]);
            self.segment(ends, false, (sequences[1] - 1, Some(sequences[0])), 'S', &[]);
            self.segment(ends, true, (sequences[0], Some(sequences[1])), 'A', &[]);
        }
        for step in steps {
            let (from_client, bytes) = match step {
                Step::Client(bytes) => (true, bytes),
                Step::Server(bytes) => (false, bytes),
            };
            let (own, other) = if from_client { (0, 1) } else { (1, 0) };
            self.segment(
                ends,
                from_client,
                (sequences[own], Some(sequences[other])),
                'A',
                bytes,
            );
            sequences[own] += u32::try_from(bytes.len()).unwrap();
        }
        self.segment(ends, true, (sequences[0], Some(sequences[1])), 'F', &[]);
        self.segment(ends, false, (sequences[1], Some(sequences[0] + 1)), 'F', &[]);
        self.note(&ends, steps);
    }

    fn note(&mut self, ends: &[SocketAddr; 2], steps: &[Step]) {
        let names = (ends[0].ip().to_string(), ends[1].to_string());
        let is_answer = |step: &Step| matches!(step, Step::Server(_));
        if !steps.is_empty() && !steps.iter().any(is_answer) {
            self.silent.insert(names.clone());
        }
        for pair in steps.windows(2) {
            let [Step::Client(asked), Step::Server(answer)] = pair else {
                continue;
            };
            if asked.len() < 12 || answer[7] & 0x80 != 0 {
                continue;
            }
            let number = |at: usize| u32::from(u16::from_be_bytes([asked[at], asked[at + 1]]));
            let (name, value) = match asked[7] {
                6 => ("write-single-register", Some(number(10))),
                3 => ("read-holding-registers", None),
                _ => ("read-coils", None),
            };
            let operation = format!("{name} {} of unit 1", number(8));
            self.answered
                .insert((names.0.clone(), names.1.clone(), operation, value));
        }
    }

    /// What was answered, and not refused.
    pub(crate) fn answered(&self) -> &BTreeSet<Answered> {
        &self.answered
    }

    /// Whether these two have a connection on which only the client was heard.
    pub(crate) fn is_silent(&self, client: &str, server: &str) -> bool {
        self.silent.contains(&(client.to_owned(), server.to_owned()))
    }

    fn segment(
        &mut self,
        ends: [SocketAddr; 2],
        from_client: bool,
        (sequence, acknowledged): (u32, Option<u32>),
        flag: char,
        payload: &[u8],
    ) {
        let (from, to) = if from_client {
            (ends[0], ends[1])
        } else {
            (ends[1], ends[0])
        };
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
            panic!("IPv4 only");
        };
        let macs = if from_client {
            ([2; 6], [4; 6])
        } else {
            ([4; 6], [2; 6])
        };
        let builder = PacketBuilder::ethernet2(macs.0, macs.1)
            .ipv4(from.ip().octets(), to.ip().octets(), 64)
            .tcp(from.port(), to.port(), sequence, 60_000);
        let builder = match acknowledged {
            Some(number) => builder.ack(number),
            None => builder,
        };
        let builder = match flag {
            'S' => builder.syn(),
            'F' => builder.fin(),
            _ => builder,
        };
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        self.at += Duration::from_millis(10);
        self.packets.push(Packet {
            at: self.at,
            from_client,
            bytes,
        });
    }

    /// A frame as it stands.
    pub(crate) fn frame(&mut self, bytes: Vec<u8>) {
        self.at += Duration::from_millis(10);
        self.packets.push(Packet {
            at: self.at,
            from_client: true,
            bytes,
        });
    }

    /// Leaves out all packets but those.
    pub(crate) fn keep(&mut self, wanted: impl Fn(&Packet) -> bool) {
        self.packets.retain(wanted);
    }

    /// Every packet that `every` counts comes twice.
    pub(crate) fn doubled(&self, every: usize) -> Self {
        let packets = self.packets.iter().enumerate();
        let packets = packets.flat_map(|(at, packet)| vec![packet.clone(); 1 + usize::from(at % every == 0)]);
        Self {
            packets: packets.collect(),
            ..self.clone()
        }
    }

    /// Every packet with a VLAN's tag.
    pub(crate) fn tagged(&self, vlan: u16) -> Self {
        let mut other = self.clone();
        for packet in &mut other.packets {
            let tag = [0x81, 0, vlan.to_be_bytes()[0], vlan.to_be_bytes()[1]];
            packet.bytes.splice(12..12, tag);
        }
        other
    }

    /// Ethernet in microseconds.
    pub(crate) fn pcap(&self) -> Vec<u8> {
        self.file(0xa1b2_c3d4, 1, 1_000, |packet| packet.bytes.clone())
    }

    /// Ethernet in nanoseconds.
    pub(crate) fn nanoseconds(&self) -> Vec<u8> {
        self.file(0xa1b2_3c4d, 1, 1, |packet| packet.bytes.clone())
    }

    /// Linux cooked.
    pub(crate) fn cooked(&self) -> Vec<u8> {
        self.file(0xa1b2_c3d4, 113, 1_000, |packet| {
            let mut bytes = vec![0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];
            bytes.extend(&packet.bytes[12..]);
            bytes
        })
    }

    fn file(&self, magic: u32, link_type: u32, unit: u32, bytes: impl Fn(&Packet) -> Vec<u8>) -> Vec<u8> {
        let mut file = Vec::new();
        for field in [magic, 0x0004_0002, 0, 0, 65_535, link_type] {
            file.extend(field.to_le_bytes());
        }
        for packet in &self.packets {
            let bytes = bytes(packet);
            let length = u32::try_from(bytes.len()).unwrap();
            let seconds = u32::try_from(packet.at.as_secs()).unwrap();
            for field in [seconds, packet.at.subsec_nanos() / unit, length, length] {
                file.extend(field.to_le_bytes());
            }
            file.extend(bytes);
        }
        file
    }

    /// pcapng, its byte order the other one.
    pub(crate) fn ng(&self) -> Vec<u8> {
        let block = |kind: u32, body: &[u8]| {
            let mut body = body.to_vec();
            body.resize(body.len().next_multiple_of(4), 0);
            let length = u32::try_from(body.len() + 12).unwrap().to_be_bytes();
            [&kind.to_be_bytes()[..], &length, &body, &length].concat()
        };
        let section = [&0x1a2b_3c4d_u32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat();
        let mut file = block(0x0a0d_0d0a, &section);
        file.extend(block(1, &[0, 1, 0, 0, 0, 0, 0, 0]));
        for packet in &self.packets {
            let micros = u64::try_from(packet.at.as_micros()).unwrap();
            let length = u32::try_from(packet.bytes.len()).unwrap().to_be_bytes();
            let time = micros.to_be_bytes();
            let body = [&[0; 4][..], &time, &length, &length, &packet.bytes].concat();
            file.extend(block(6, &body));
        }
        file
    }
}
