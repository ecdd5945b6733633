//! Whether what was left of an answer has the shape that was looked for.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Node;

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
