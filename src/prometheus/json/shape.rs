//! The shape of an answer: where its parts stand, and whether what was left of it without them has that shape.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What is at a place of a response. `null` may be in the place of each, and a member may be missing.
#[derive(Debug)]
pub(in crate::prometheus) enum Node {
    /// An object of which these members lead on; their keys are compared as Go does, without regard to case.
    Keys(&'static [(&'static str, Node)]),
    /// A list whose elements are handed over under this number; parts of them that are handed over before.
    List(u8, Option<&'static Node>),
    /// An object whose members are handed over under this number, with their keys; as for a list.
    Members(u8, Option<&'static Node>),
    /// A text that is handed over in pieces.
    Text,
}

/// Reads what was left of an answer: what a node says, without parts.
#[derive(Clone, Copy)]
pub(super) struct Shape(pub(super) &'static Node);

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Node::Keys(_) | Node::Members(..) => "an object",
            Node::List(..) => "a list",
            Node::Text => "a text",
        })
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        match self.0 {
            Node::Text if text.is_empty() => Ok(()),
            _ => Err(E::invalid_type(de::Unexpected::Other("a text"), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        match self.0 {
            Node::List(..) if list.next_element::<IgnoredAny>()?.is_none() => Ok(()),
            _ => Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let node = match self.0 {
                Node::Keys(keys) => keys.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)),
                _ => return Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
            };
            match node {
                Some((_, node)) => map.next_value_seed(Shape(node))?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match self.0 {
            Node::Keys(_) | Node::Members(..) => Ok(()),
            Node::List(..) | Node::Text => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
        }
    }
}
