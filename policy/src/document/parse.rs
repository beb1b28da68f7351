//! From the text of one file to a tree, with everything refused that could show another policy than it means.
//!
//! The YAML itself is read by saphyr-parser (YAML 1.2, events with positions). Only events are used: anchors,
//! aliases, tags, merge keys, second documents, duplicate keys and hidden characters are refused here, and depth
//! and size are bounded, so the tree that comes out is exactly what a person sees in the file. saphyr-parser
//! is preferred over a serde front end, since serde stops at the first fault and forgets where keys stand.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::limits::{DEPTH_MAX, LIST_ITEMS_MAX, NODES_MAX, TEXT_LENGTH_MAX};
use super::node::{Entry, Kind, Node, excerpt};
use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::diagnostics::source::Place;
use crate::text::is_hidden;

/// Reads file number `file`. `None` if nothing can be said about its content; a fault says why.
pub(crate) fn parse(file: usize, text: &str, nodes: &mut usize, faults: &mut Faults) -> Option<Node> {
    if !visible(file, text, faults) {
        return None;
    }
    let offsets = Offsets::new(text);
    let mut builder = Builder {
        file,
        text,
        offsets: &offsets,
        stack: Vec::new(),
        root: None,
        documents: 0,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = builder.byte(*error.marker());
                faults.add(
                    Fault::new(
                        Code::NotYaml,
                        builder.around(at),
                        format!("this is not YAML: {}", error.info()),
                    )
                    .label("the parser stopped here")
                    .help("nothing below this place was read; fix it and check again"),
                );
                return None;
            }
        };
        if matches!(
            event,
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..)
        ) {
            *nodes += 1;
        }
        if *nodes > NODES_MAX {
            let place = builder.place(span);
            faults.add(Fault::new(
                Code::TooLarge,
                place,
                format!("the document has more than {NODES_MAX} values"),
            ));
            return None;
        }
        builder.take(event, span, faults)?;
    }
    if builder.documents > 1 {
        return None;
    }
    builder.root
}

/// Refuses characters that a reviewer cannot see. NUL would even end the document early for the parser.
fn visible(file: usize, text: &str, faults: &mut Faults) -> bool {
    let before = faults.errors();
    for (at, c) in text.char_indices() {
        let hidden = match c {
            '\r' => text.as_bytes().get(at + 1) != Some(&b'\n'),
            '\u{feff}' => at != 0,
            c => is_hidden(c),
        };
        if hidden {
            let place = Place::new(file, at, at + c.len_utf8());
            faults.add(
                Fault::new(
                    Code::HiddenCharacter,
                    place,
                    format!("the text holds the hidden character U+{:04X}", c as u32),
                )
                .label("it stands here")
                .help("delete it; nothing of this file is read before"),
            );
        }
    }
    faults.errors() == before
}

/// Byte offsets by character index: the parser counts characters, everything else here bytes.
pub(super) struct Offsets {
    /// Byte offset of every [`Offsets::STEP`]th character.
    marks: Vec<usize>,
}

impl Offsets {
    const STEP: usize = 64;

    pub(super) fn new(text: &str) -> Self {
        Self {
            marks: text
                .char_indices()
                .step_by(Self::STEP)
                .map(|(at, _)| at)
                .collect(),
        }
    }

    pub(super) fn byte(&self, text: &str, index: usize) -> usize {
        let Some(mark) = self.marks.get(index / Self::STEP) else {
            return text.len();
        };
        let rest = text.get(*mark..).unwrap_or_default();
        rest.char_indices()
            .nth(index % Self::STEP)
            .map_or(text.len(), |(at, _)| mark + at)
    }
}

/// A list or mapping that is not closed yet.
struct OpenNode {
    start: Marker,
    hangs_on: Option<Place>,
    /// A list that was given more items than it may have.
    overfull: bool,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        places: HashMap<String, Place>,
        /// The key whose value comes next: `Some(None)` if that entry is refused.
        key: Option<Option<(String, bool, Place)>>,
    },
}

struct Builder<'a> {
    file: usize,
    text: &'a str,
    offsets: &'a Offsets,
    stack: Vec<OpenNode>,
    root: Option<Node>,
    documents: usize,
}

impl Builder<'_> {
    fn byte(&self, marker: Marker) -> usize {
        self.offsets.byte(self.text, marker.index())
    }

    /// The span without what follows its first line, and without the white space at its end.
    fn place(&self, span: Span) -> Place {
        let start = self.byte(span.start);
        let end = self.byte(span.end).max(start);
        let text = self.text.get(start..end).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim_end();
        if line.is_empty() {
            self.around(start)
        } else {
            Place::new(self.file, start, start + line.len())
        }
    }

    /// A place of one character, or none at the end of the text.
    fn around(&self, start: usize) -> Place {
        let next = self
            .text
            .get(start..)
            .and_then(|rest| rest.chars().next())
            .filter(|c| !c.is_control());
        Place::new(self.file, start, start + next.map_or(0, char::len_utf8))
    }

    /// The key that waits for its value.
    fn pending_key(&self) -> Option<Place> {
        match self.stack.last().map(|open| &open.content) {
            Some(OpenContent::Mapping {
                key: Some(Some((_, _, place))),
                ..
            }) => Some(*place),
            _ => None,
        }
    }

    /// Takes one event; `None` if nothing more of this file is to be read.
    fn take(&mut self, event: Event<'_>, span: Span, faults: &mut Faults) -> Option<()> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    faults.add(
                        Fault::new(
                            Code::ManyDocuments,
                            self.place(span),
                            "a second document begins in this file",
                        )
                        .label("it begins here")
                        .help("put it in a file of its own, in the same folder"),
                    );
                    return None;
                }
            }
            Event::Alias(_) => {
                self.refuse_alias(span, faults);
                let place = self.place(span);
                self.attach(
                    Node {
                        place,
                        kind: Kind::Broken,
                    },
                    faults,
                );
            }
            Event::Scalar(text, style, anchor, tag) => {
                let mut place = self.place(span);
                let plain = style == ScalarStyle::Plain;
                if plain && text.is_empty() {
                    place = self.pending_key().unwrap_or(place);
                }
                let marked = self.refuse_marks(anchor, tag.is_some(), span, faults);
                let long = text.chars().nth(TEXT_LENGTH_MAX).is_some();
                if long {
                    let message = format!("one text has more than {TEXT_LENGTH_MAX} characters");
                    faults.add(
                        Fault::new(Code::TooLarge, place, message).help("shorten it, or refer to a document"),
                    );
                }
                let hidden = text.chars().find(|c| is_hidden(*c));
                if let Some(c) = hidden {
                    let message = format!(
                        "an escape in this text makes the hidden character U+{:04X}",
                        c as u32
                    );
                    faults.add(
                        Fault::new(Code::HiddenCharacter, place, message)
                            .label("with an escape")
                            .help("write the text without it"),
                    );
                }
                let kind = if marked || long || hidden.is_some() {
                    Kind::Broken
                } else {
                    Kind::Scalar {
                        text: text.into_owned(),
                        plain,
                    }
                };
                self.attach(Node { place, kind }, faults);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), span, faults);
                self.open(span, OpenContent::List(Vec::new()), faults)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_marks(anchor, tag.is_some(), span, faults);
                let content = OpenContent::Mapping {
                    entries: Vec::new(),
                    places: HashMap::new(),
                    key: None,
                };
                self.open(span, content, faults)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span, faults),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Some(())
    }

    fn refuse_alias(&self, span: Span, faults: &mut Faults) {
        faults.add(
            Fault::new(
                Code::Alias,
                self.place(span),
                "an alias stands for text that is written elsewhere",
            )
            .label("this alias")
            .help("write the value out here"),
        );
    }

    /// Refuses an anchor or a tag. Whether the value is unusable for it.
    fn refuse_marks(&self, anchor: usize, tag: bool, span: Span, faults: &mut Faults) -> bool {
        if anchor != 0 {
            faults.add(
                Fault::new(
                    Code::Alias,
                    self.place(span),
                    "an anchor (`&name`) is set on this value",
                )
                .label("this value has an anchor")
                .help("remove the anchor, and write the value out where it was used"),
            );
        }
        if tag {
            faults.add(
                Fault::new(
                    Code::Tag,
                    self.place(span),
                    "a tag (`!name`) is set on this value",
                )
                .label("this value has a tag")
                .help("remove the tag; quote the value if it is to be read as text"),
            );
        }
        tag
    }

    fn open(&mut self, span: Span, content: OpenContent, faults: &mut Faults) -> Option<()> {
        if self.stack.len() >= DEPTH_MAX {
            let message = format!("lists and mappings are nested more than {DEPTH_MAX} deep");
            faults.add(Fault::new(Code::TooDeep, self.place(span), message).label("too deep from here"));
            return None;
        }
        self.stack.push(OpenNode {
            start: span.start,
            hangs_on: self.pending_key(),
            overfull: false,
            content,
        });
        Some(())
    }

    fn close(&mut self, span: Span, faults: &mut Faults) {
        let Some(open) = self.stack.pop() else { return };
        let (start, end) = (self.byte(open.start), self.byte(span.end));
        let own = self
            .text
            .get(start..end)
            .map(str::trim_end)
            .filter(|text| !text.contains('\n') && !text.is_empty());
        let place = match own {
            Some(text) => Place::new(self.file, start, start + text.len()),
            None => open.hangs_on.unwrap_or_else(|| match &open.content {
                OpenContent::Mapping { entries, .. } => entries
                    .first()
                    .map_or_else(|| self.around(start), |entry| entry.key_place),
                OpenContent::List(items) => items
                    .first()
                    .map_or_else(|| self.around(start), |item| item.place),
            }),
        };
        let kind = match open.content {
            OpenContent::List(items) => Kind::List(items),
            OpenContent::Mapping { entries, .. } => Kind::Mapping(entries),
        };
        self.attach(Node { place, kind }, faults);
    }

    /// Puts a finished value where it belongs.
    fn attach(&mut self, node: Node, faults: &mut Faults) {
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.content {
            OpenContent::List(items) if items.len() < LIST_ITEMS_MAX => items.push(node),
            OpenContent::List(items) => {
                // Said once: a list is never shorter again, and the first item too many is refused with all after it.
                if !std::mem::replace(&mut open.overfull, true) {
                    let message = format!("a list has more than {} items", items.len());
                    faults.add(
                        Fault::new(Code::TooLarge, node.place, message)
                            .label("one too many")
                            .help("name the whole zone with `zone:NAME`, or divide the list"),
                    );
                }
            }
            OpenContent::Mapping { entries, places, key } => match key.take() {
                None => *key = Some(as_key(node, places, faults)),
                Some(None) => {}
                Some(Some((key, key_plain, key_place))) => {
                    entries.push(Entry {
                        key,
                        key_plain,
                        key_place,
                        value: node,
                    });
                }
            },
        }
    }
}

/// The node as a key, if it may be one and is not there yet.
fn as_key(
    node: Node,
    places: &mut HashMap<String, Place>,
    faults: &mut Faults,
) -> Option<(String, bool, Place)> {
    let place = node.place;
    match node.kind {
        Kind::Scalar { text, plain: true } if text == "<<" => {
            faults.add(
                Fault::new(
                    Code::Alias,
                    place,
                    "a merge key (`<<`) takes keys over from elsewhere",
                )
                .help("write the keys out here"),
            );
            None
        }
        Kind::Scalar { text, plain } => {
            if let Some(first) = places.get(&text) {
                faults.add(
                    Fault::new(
                        Code::DuplicateKey,
                        place,
                        format!("the key `{}` is given twice", excerpt(&text)),
                    )
                    .label("again here")
                    .related(*first, "first given here")
                    .help("keep one of the two"),
                );
                return None;
            }
            places.insert(text.clone(), place);
            Some((text, plain, place))
        }
        Kind::Broken => None,
        Kind::List(_) | Kind::Mapping(_) => {
            faults.add(
                Fault::new(Code::KeyNotText, place, "a list or mapping is used as a key")
                    .help("a key is a plain word; perhaps a `?`, `{` or `[` is too many"),
            );
            None
        }
    }
}
