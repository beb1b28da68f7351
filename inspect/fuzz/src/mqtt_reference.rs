//! A broker's reading of a client's stream, as plain as can be: what would it publish and subscribe?
//!
//! It trusts lengths, resolves aliases as a broker does, and panics where the stream is not MQTT: what went on must
//! be readable by anybody. Topics and filters are compared level by level, by recursion.

use std::collections::HashMap;

/// What the broker would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Connect {
        client_id: String,
        will: Option<Message>,
    },
    Publish(Message),
    Subscribe {
        filter: String,
        qos: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
}

/// Bytes that are read from the front.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(
            self.take(bytes)?
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    }

    fn variable(&mut self) -> Option<usize> {
        let mut number = 0;
        for place in 0..4 {
            let byte = self.number(1)?;
            number |= (byte & 127) << (7 * place);
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.number(2)?;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.block()?.to_vec()).ok()
    }

    /// The topic alias among properties (MQTT 5, 2.2.2), which are passed over by their types.
    fn properties(&mut self) -> Option<Option<usize>> {
        let length = self.variable()?;
        let mut properties = Rest(self.take(length)?);
        let mut alias = None;
        while !properties.0.is_empty() {
            match properties.number(1)? {
                35 => alias = Some(properties.number(2)?),
                1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => drop(properties.number(1)?),
                19 | 33 | 34 => drop(properties.number(2)?),
                2 | 17 | 24 | 39 => drop(properties.number(4)?),
                11 => drop(properties.variable()?),
                3 | 8 | 9 | 18 | 21 | 22 | 26 | 28 | 31 => drop(properties.block()?),
                38 => drop((properties.block()?, properties.block()?)),
                other => panic!("property {other}"),
            }
        }
        Some(alias)
    }
}

/// All that a broker does with what a client sent, and how many packets that is. A publication counts from its head on;
/// everything else only if it is whole, and nothing else may be cut.
pub fn deeds(stream: &[u8]) -> (Vec<Deed>, usize) {
    let mut rest = Rest(stream);
    let mut deeds = Vec::new();
    let mut packets = 0;
    let mut version = 4;
    let mut aliases: HashMap<usize, String> = HashMap::new();
    while !rest.0.is_empty() {
        let first = rest.number(1).unwrap();
        let length = rest.variable().expect("a whole fixed header");
        let present = length.min(rest.0.len());
        let mut body = Rest(rest.take(present).unwrap());
        packets += 1;
        let done = match first >> 4 {
            1 => connect(&mut body, &mut version).map(|deed| deeds.push(deed)),
            3 => publish(first, &mut body, version, &mut aliases).map(|deed| deeds.push(deed)),
            8 => subscribe(&mut body, version).map(|filters| deeds.extend(filters)),
            4..=7 | 10 | 12 | 14 | 15 => Some(()),
            other => panic!("a client sends no packet of type {other}"),
        };
        assert!(done.is_some(), "packet {packets} cannot be read");
        assert!(present == length || first >> 4 == 3, "packet {packets} is cut");
    }
    (deeds, packets)
}

fn connect(body: &mut Rest<'_>, version: &mut usize) -> Option<Deed> {
    body.block()?;
    *version = body.number(1)?;
    let flags = body.number(1)?;
    body.number(2)?;
    if *version == 5 {
        body.properties()?;
    }
    let client_id = body.text()?;
    let mut will = None;
    if flags & 4 != 0 {
        if *version == 5 {
            body.properties()?;
        }
        will = Some(Message {
            topic: body.text()?,
            qos: u8::try_from(flags >> 3 & 3).unwrap(),
            retain: flags & 0x20 != 0,
        });
    }
    Some(Deed::Connect { client_id, will })
}

fn publish(
    first: usize,
    body: &mut Rest<'_>,
    version: usize,
    aliases: &mut HashMap<usize, String>,
) -> Option<Deed> {
    let mut topic = body.text()?;
    let qos = u8::try_from(first >> 1 & 3).unwrap();
    if qos > 0 {
        body.number(2)?;
    }
    if version == 5
        && let Some(alias) = body.properties()?
    {
        if topic.is_empty() {
            topic = aliases.get(&alias)?.clone();
        } else {
            aliases.insert(alias, topic.clone());
        }
    }
    Some(Deed::Publish(Message {
        topic,
        qos,
        retain: first & 1 != 0,
    }))
}

fn subscribe(body: &mut Rest<'_>, version: usize) -> Option<Vec<Deed>> {
    body.number(2)?;
    if version == 5 {
        body.properties()?;
    }
    let mut deeds = Vec::new();
    while !body.0.is_empty() {
        let filter = body.text()?;
        let qos = u8::try_from(body.number(1)? & 3).unwrap();
        deeds.push(Deed::Subscribe { filter, qos });
    }
    Some(deeds)
}

/// Whether a filter matches a topic (4.7).
pub fn matches(filter: &str, topic: &str) -> bool {
    let wild = filter.starts_with('+') || filter.starts_with('#');
    let (filter, names): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    !(wild && topic.starts_with('$')) && levels_match(&filter, &names)
}

fn levels_match(filter: &[&str], names: &[&str]) -> bool {
    match (filter, names) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, names @ ..]) => levels_match(filter, names),
        ([level, filter @ ..], [name, names @ ..]) => level == name && levels_match(filter, names),
        _ => false,
    }
}

/// Topics that a filter matches: each wildcard filled in several ways.
pub fn examples(filter: &str) -> Vec<String> {
    let mut topics: Vec<String> = vec![String::new()];
    for (at, level) in filter.split('/').enumerate() {
        let fillings: &[&str] = match level {
            "+" => &["", "zz", "b"],
            "#" => &["", "zz", "b", "zz/yy", "b/zz/"],
            _ => &[],
        };
        let mut next = Vec::new();
        for topic in &topics {
            let slash = if at == 0 { "" } else { "/" };
            if level == "#" && at > 0 {
                next.push(topic.clone());
            }
            let fillings = if fillings.is_empty() {
                vec![level]
            } else {
                fillings.to_vec()
            };
            next.extend(fillings.iter().map(|filling| format!("{topic}{slash}{filling}")));
        }
        next.truncate(500);
        topics = next;
    }
    topics.retain(|topic| !topic.is_empty());
    topics
}
