//! Splits a JSON response into parts while it arrives.
//!
//! A [`Node`] says where the parts are: elements of lists, members of objects, nested if need be, or one long text.
//! Only the part that is being read is held, with the little JSON around it. Each part (with an empty list in place of
//! each list in it whose elements were handed over before), and in the end what is around all of them, is parsed by
//! serde: serde decides what is valid JSON, this module only finds where a part ends.
//!
//! **Bounds.** Memory for what is held, and for what serde may make of a part ([`GROWTH`]), is requested from the
//! [`Sink`] before it is used; what is around the parts has a limit of its own. Nothing here recurses with the depth of
//! a response.
//!
//! **Why not a library.** Streaming parsers (struson, actson, json-event-parser) return events or block on a reader;
//! from events each value would have to be put together a second time. serde's own streams of values know no lists and
//! no paths.

mod shape;

use std::{mem, ops::ControlFlow};

use serde::{Deserialize, de::DeserializeSeed as _};

pub(super) use self::shape::Node;
use self::shape::Shape;
use super::error::ErrorKind;

/// How many times its own size a part may take once it is read: a label of a few letters becomes two texts of their own in a
/// tree, and then in a list.
const GROWTH: usize = 24;
/// Memory is asked for in multiples of this, in bytes.
const STEP: usize = 16 << 10;

/// A part of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    /// The number of its list or object.
    pub(super) id: u8,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Item<'a> {
    /// Its value; `expected` says in words what the answer should hold.
    pub(super) fn read<T: Deserialize<'a>>(&self, expected: &str) -> Result<T, ErrorKind> {
        serde_json::from_slice(self.value).map_err(|error| ErrorKind::from_json(&error, expected))
    }

    /// Its length, in bytes.
    pub(super) fn len(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// Its key, if it is a member of an object.
    pub(super) fn key(&self, expected: &str) -> Result<String, ErrorKind> {
        serde_json::from_slice(self.key).map_err(|error| ErrorKind::from_json(&error, expected))
    }
}

/// Accepts the parts.
pub(super) trait Sink {
    /// Whether there is memory for so many bytes more.
    fn reserve(&mut self, bytes: usize) -> bool;

    /// Takes a part, and may end it all.
    ///
    /// # Errors
    /// The part is not what it should be, or there is no memory for what is made of it.
    fn item(&mut self, item: Item<'_>) -> Result<ControlFlow<()>, ErrorKind>;

    /// A text begins.
    fn text_begins(&mut self) {}

    /// Takes the next piece of a text, with its escapes, of which a piece may hold a part.
    ///
    /// # Errors
    /// What would have to be kept of it is too large.
    fn text(&mut self, _piece: &[u8]) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// An answer while it arrives.
#[derive(Debug)]
pub(super) struct Scanner {
    root: &'static Node,
    /// The most that may be around the parts, in bytes.
    around_max: usize,
    /// How many brackets are open.
    depth: usize,
    in_string: bool,
    /// The next byte of the string is escaped.
    escaped: bool,
    /// The string is a text that is handed over.
    in_text: bool,
    /// Where the last string begins in what is held.
    string: usize,
    frames: Vec<Frame>,
    phase: Phase,
    /// What is around the parts; then the part that is read of each list or object that is open.
    held: Vec<Vec<u8>>,
    /// The length of all that is held.
    length: usize,
    /// Memory that was asked for.
    granted: usize,
    /// Bytes that have come.
    come: u64,
}

/// An open list or object that leads to parts.
#[derive(Clone, Copy, Debug)]
struct Frame {
    node: &'static Node,
    /// How many brackets are open directly in it.
    depth: usize,
    /// A comma was read, so that another part must follow.
    comma: bool,
    /// Where the value begins, behind the key and its colon.
    value: usize,
}

/// What comes next in the innermost frame.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Key,
    /// A key was read that leads there, if anywhere.
    Colon(Option<&'static Node>),
    Value(Option<&'static Node>),
    /// Nothing that matters, up to a comma or the end.
    Rest,
}

impl Scanner {
    /// Finds the parts below `root`; around them there may be `around_max` bytes.
    pub(super) fn new(root: &'static Node, around_max: usize) -> Self {
        Self {
            root,
            around_max,
            depth: 0,
            in_string: false,
            escaped: false,
            in_text: false,
            string: 0,
            frames: Vec::new(),
            phase: Phase::Value(Some(root)),
            held: vec![Vec::new()],
            length: 0,
            granted: 0,
            come: 0,
        }
    }

    /// Takes the next bytes and hands what is complete to `sink`, which may end it all.
    ///
    /// # Errors
    /// What `sink` gives, and an answer that cannot be held.
    pub(super) fn push(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<ControlFlow<()>, ErrorKind> {
        self.come += bytes.len() as u64;
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.in_string {
                rest = self.within_string(rest, sink)?;
                continue;
            }
            if !self.at_top() {
                let plain = |byte: &u8| !matches!(byte, b'"' | b'[' | b']' | b'{' | b'}');
                let length = rest.iter().take_while(|byte| plain(byte)).count();
                if length > 0 {
                    self.append(&rest[..length], sink)?;
                    rest = &rest[length..];
                    continue;
                }
            }
            rest = after;
            if self.outside(byte, sink)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether no bracket is open but those of the frames.
    fn at_top(&self) -> bool {
        self.depth == self.frames.last().map_or(0, |frame| frame.depth)
    }

    /// Takes a stretch of a string, and gives what follows.
    fn within_string<'a>(&mut self, rest: &'a [u8], sink: &mut impl Sink) -> Result<&'a [u8], ErrorKind> {
        let mut at = usize::from(mem::take(&mut self.escaped));
        let end = loop {
            let special = rest.iter().skip(at).position(|byte| matches!(byte, b'"' | b'\\'));
            match special.map(|special| at + special) {
                Some(special) if rest[special] == b'"' => break Some(special),
                Some(special) if special + 1 == rest.len() => {
                    self.escaped = true;
                    break None;
                }
                Some(special) => at = special + 2,
                None => break None,
            }
        };
        let (text, after) = rest.split_at(end.unwrap_or(rest.len()));
        match self.in_text {
            true => sink.text(text)?,
            false => self.append(text, sink)?,
        }
        let Some((mark, after)) = after.split_first() else {
            return Ok(after);
        };
        self.in_string = false;
        self.in_text = false;
        if matches!(self.phase, Phase::Key) && self.at_top() {
            self.phase = Phase::Colon(self.node_of_key());
        }
        self.append(&[*mark], sink)?;
        Ok(after)
    }

    /// Where the key that was just read leads.
    fn node_of_key(&self) -> Option<&'static Node> {
        match self.frames.last()?.node {
            Node::Keys(keys) => {
                let key = self.held.last()?.get(self.string..)?;
                let mut keys = keys.iter();
                keys.find_map(|(name, node)| key.eq_ignore_ascii_case(name.as_bytes()).then_some(node))
            }
            Node::Members(_, inner) => *inner,
            Node::List(..) | Node::Text => None,
        }
    }

    /// A byte outside of strings.
    fn outside(&mut self, byte: u8, sink: &mut impl Sink) -> Result<ControlFlow<()>, ErrorKind> {
        let at_top = self.at_top();
        if let (Phase::Value(node), true) = (self.phase, at_top)
            && !byte.is_ascii_whitespace()
            && !matches!(byte, b',' | b']' | b'}')
        {
            self.phase = Phase::Rest;
            self.begin_value(byte, node, sink)?;
            return Ok(ControlFlow::Continue(()));
        }
        match byte {
            b',' if at_top => return self.comma(sink),
            b']' | b'}' if at_top && !self.frames.is_empty() => return self.close(byte, sink),
            b':' if at_top => {
                self.append(b":", sink)?;
                if let Phase::Colon(node) = self.phase {
                    self.phase = Phase::Value(node);
                    let value = self.held.last().map_or(0, Vec::len);
                    if let Some(frame) = self.frames.last_mut() {
                        frame.value = value;
                    }
                }
                return Ok(ControlFlow::Continue(()));
            }
            b'"' => return self.open_string(sink).map(ControlFlow::Continue),
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.append(&[byte], sink)?;
        Ok(ControlFlow::Continue(()))
    }

    fn open_string(&mut self, sink: &mut impl Sink) -> Result<(), ErrorKind> {
        self.append(b"\"", sink)?;
        self.in_string = true;
        self.string = self.held.last().map_or(0, Vec::len);
        Ok(())
    }

    /// A value begins in the place of `node`.
    fn begin_value(&mut self, byte: u8, node: Option<&'static Node>, sink: &mut impl Sink) -> Result<(), ErrorKind> {
        if byte == b'"' {
            self.open_string(sink)?;
            if let Some(Node::Text) = node {
                self.in_text = true;
                sink.text_begins();
            }
            return Ok(());
        }
        self.append(&[byte], sink)?;
        if !matches!(byte, b'[' | b'{') {
            return Ok(());
        }
        self.depth += 1;
        let phase = match (node, byte) {
            (Some(Node::Keys(_) | Node::Members(..)), b'{') => Phase::Key,
            (Some(Node::List(_, inner)), b'[') => Phase::Value(*inner),
            _ => return Ok(()),
        };
        let Some(node) = node else { return Ok(()) };
        self.phase = phase;
        self.frames.push(Frame {
            node,
            depth: self.depth,
            comma: false,
            value: 0,
        });
        if !matches!(node, Node::Keys(_)) {
            self.held.push(Vec::new());
        }
        Ok(())
    }

    fn comma(&mut self, sink: &mut impl Sink) -> Result<ControlFlow<()>, ErrorKind> {
        let Some(frame) = self.frames.last_mut() else {
            return self.append(b",", sink).map(ControlFlow::Continue);
        };
        self.phase = match frame.node {
            Node::Keys(_) => {
                self.phase = Phase::Key;
                return self.append(b",", sink).map(ControlFlow::Continue);
            }
            Node::List(_, inner) => Phase::Value(*inner),
            Node::Members(..) | Node::Text => Phase::Key,
        };
        frame.comma = true;
        self.hand_over(sink)
    }

    /// The innermost frame ends.
    fn close(&mut self, byte: u8, sink: &mut impl Sink) -> Result<ControlFlow<()>, ErrorKind> {
        let mut flow = ControlFlow::Continue(());
        if let Some(frame) = self
            .frames
            .last()
            .copied()
            .filter(|frame| !matches!(frame.node, Node::Keys(_)))
        {
            let empty = self.held.last().is_none_or(|part| part.trim_ascii().is_empty());
            // Only one without parts has nothing before its end.
            if frame.comma || !empty {
                flow = self.hand_over(sink)?;
            }
            let blank = self.held.pop().map_or(0, |part| part.len());
            self.length -= blank;
        }
        self.frames.pop();
        self.depth -= 1;
        self.phase = Phase::Rest;
        self.append(&[byte], sink)?;
        Ok(flow)
    }

    /// The part that was read is complete.
    fn hand_over(&mut self, sink: &mut impl Sink) -> Result<ControlFlow<()>, ErrorKind> {
        let part = self.held.last_mut().map(mem::take).unwrap_or_default();
        self.ask(part.len().saturating_mul(GROWTH), sink)?;
        let (id, value) = match self.frames.last_mut() {
            Some(Frame {
                node: Node::Members(id, _),
                value,
                ..
            }) => (*id, mem::take(value)),
            Some(Frame {
                node: Node::List(id, _),
                ..
            }) => (*id, 0),
            _ => return Ok(ControlFlow::Continue(())),
        };
        // Without a colon all of it is a key, and serde misses the value.
        let at = if value == 0 { part.len() } else { value };
        let item = match self.frames.last() {
            Some(Frame {
                node: Node::List(..), ..
            }) => Item {
                id,
                key: &[],
                value: &part,
            },
            _ => Item {
                id,
                key: part[..at].strip_suffix(b":").unwrap_or(&part),
                value: &part[at..],
            },
        };
        let flow = sink.item(item)?;
        self.length -= part.len();
        if let Some(held) = self.held.last_mut() {
            // Its memory is used for the next one.
            *held = part;
            held.clear();
        }
        Ok(flow)
    }

    fn append(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), ErrorKind> {
        self.length += bytes.len();
        self.ask(0, sink)?;
        let around = self.held.len() == 1;
        let Some(held) = self.held.last_mut() else {
            return Ok(());
        };
        if around && held.len() + bytes.len() > self.around_max {
            return Err(ErrorKind::TooLarge { limit: self.around_max });
        }
        held.extend_from_slice(bytes);
        Ok(())
    }

    /// Asks for memory for what is held, twice since buffers grow by doubling, and for `more`.
    fn ask(&mut self, more: usize, sink: &mut impl Sink) -> Result<(), ErrorKind> {
        let wanted = self.length.saturating_mul(2).saturating_add(more);
        if wanted <= self.granted {
            return Ok(());
        }
        let bytes = (wanted - self.granted).div_ceil(STEP).saturating_mul(STEP);
        self.granted = self.granted.saturating_add(bytes);
        match sink.reserve(bytes) {
            true => Ok(()),
            false => Err(ErrorKind::TooMuch { read: self.come }),
        }
    }

    /// What was around the parts so far.
    pub(super) fn around(&self) -> &[u8] {
        self.held.first().map_or(&[], Vec::as_slice)
    }

    /// What was around the parts, when the answer is complete and has the shape that is looked for.
    ///
    /// # Errors
    /// An answer that is cut, that has something else in the place of a part, or whose keys are written in a way that
    /// hides its parts; `expected` says in words what it should hold.
    pub(super) fn finish(mut self, expected: &str) -> Result<Vec<u8>, ErrorKind> {
        let around = self.held.swap_remove(0);
        let mut reader = serde_json::Deserializer::from_slice(&around);
        let checked = Shape(self.root).deserialize(&mut reader).and_then(|()| reader.end());
        checked.map_err(|error| ErrorKind::from_json(&error, expected))?;
        Ok(around)
    }
}

#[cfg(test)]
mod tests;
