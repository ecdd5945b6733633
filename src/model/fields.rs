//! The fields of a message in protobuf, looked at where they lie: nothing is copied, nothing is made of them.
//!
//! What a decoder accepts is accepted here; fields of unknown numbers are passed over. Bytes that are no message end it with
//! [`Malformed`], after the fields before them were handed over.

use super::uvarint::uvarint;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no message in protobuf")]
pub struct Malformed;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number in varint form.
    Number(u64),
    /// Text, bytes, a message or packed numbers: from where to where in the bytes that are walked over.
    Bytes {
        /// The first byte.
        start: usize,
        /// Behind the last byte.
        end: usize,
    },
    /// Eight or four bytes, or a group.
    Other,
}

/// Walks over the fields of the message that lies in a part of `bytes`.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// The message between `start` and `end`.
    #[inline]
    pub fn within(bytes: &'a [u8], start: usize, end: usize) -> Self {
        let end = end.min(bytes.len());
        let at = start.min(end);
        Self { bytes, at, end }
    }

    /// The message that all of `bytes` is.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self::within(bytes, 0, bytes.len())
    }

    /// Where the next field begins.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Number and value of the next field; `None` behind the last one.
    ///
    /// # Errors
    /// Bytes that are no field.
    // Not an iterator: after an error there is nothing more.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<(u64, Value)>, Malformed> {
        if self.at == self.end {
            return Ok(None);
        }
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            2 => {
                let length = self.number()?;
                let start = self.skip(length)?;
                Value::Bytes { start, end: self.at }
            }
            1 => self.skip(8).map(|_| Value::Other)?,
            5 => self.skip(4).map(|_| Value::Other)?,
            3 => self.group().map(|()| Value::Other)?,
            _ => return Err(Malformed),
        };
        Ok(Some((key >> 3, value)))
    }

    /// Goes to the end of a group, an old form that everybody must be able to pass over.
    fn group(&mut self) -> Result<(), Malformed> {
        let mut open = 1_usize;
        while open > 0 {
            let key = self.number()?;
            match key & 7 {
                0 => self.number().map(|_| ())?,
                1 => self.skip(8).map(|_| ())?,
                2 => {
                    let length = self.number()?;
                    self.skip(length)?;
                }
                3 => open += 1,
                4 => open -= 1,
                5 => self.skip(4).map(|_| ())?,
                _ => return Err(Malformed),
            }
        }
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Result<u64, Malformed> {
        let (number, size) = uvarint(&self.bytes[self.at..self.end]).ok_or(Malformed)?;
        self.at += size;
        Ok(number)
    }

    /// Goes on by `length`; where it was.
    #[inline]
    fn skip(&mut self, length: u64) -> Result<usize, Malformed> {
        let start = self.at;
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        self.at = start
            .checked_add(length)
            .filter(|at| *at <= self.end)
            .ok_or(Malformed)?;
        Ok(start)
    }
}

/// A field of a message that somebody wants to know of.
#[derive(Debug)]
pub struct Known<K: 'static> {
    /// Its number.
    pub number: u64,
    /// What it counts as.
    pub what: K,
    /// What it holds.
    pub holds: Holds<K>,
}

/// What a known field holds.
#[derive(Debug)]
pub enum Holds<K: 'static> {
    /// Text or bytes.
    Bytes,
    /// A message, of which these fields are known.
    Message(&'static [Known<K>]),
    /// Numbers in varint form: one, or several that are packed.
    Varints,
    /// Numbers of eight bytes each: one, or several that are packed.
    Fixed64,
}

/// Tells of each known field of `message` and of the messages in it, in the order in which they lie: what it counts as, how
/// many values it holds (more than one if they are packed) and how many bytes.
///
/// # Errors
/// Bytes that are no message; whatever `tell` says ends it, too.
pub fn walk<K, E: From<Malformed>>(
    message: &[u8],
    known: &'static [Known<K>],
    tell: &mut impl FnMut(&'static K, usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        let Some(field) = known.iter().find(|field| field.number == number) else {
            continue;
        };
        let bytes = match value {
            Value::Bytes { start, end } => &message[start..end],
            Value::Number(_) | Value::Other => {
                tell(&field.what, 1, 0)?;
                continue;
            }
        };
        let values = match field.holds {
            Holds::Bytes | Holds::Message(_) => 1,
            // The last byte of each has a low high bit.
            Holds::Varints => bytes.iter().filter(|byte| **byte < 0x80).count(),
            Holds::Fixed64 => bytes.len() / 8,
        };
        tell(&field.what, values, bytes.len())?;
        if let Holds::Message(known) = field.holds {
            walk(bytes, known, tell)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u64, Value)>, Malformed> {
        let (mut fields, mut found) = (Fields::of(bytes), Vec::new());
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn every_kind_of_field_is_passed() {
        let bytes = [
            &[0x08, 0x96, 1][..],
            &[0x12, 2, 7, 7],
            &[0x19, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x25, 1, 2, 3, 4],
            // A group within a group.
            &[0x2b, 0x08, 1, 0x33, 0x12, 1, 0x34, 0x34, 0x2c],
            &[0x38, 1],
        ]
        .concat();
        let found = fields(&bytes).unwrap();
        let wanted = [
            (1, Value::Number(150)),
            (2, Value::Bytes { start: 5, end: 7 }),
            (3, Value::Other),
            (4, Value::Other),
            (5, Value::Other),
            (7, Value::Number(1)),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_cut_or_no_field_is_told() {
        for bytes in [
            &[0x80][..],
            &[0x08],
            &[0x12, 2, 7],
            &[0x19, 1],
            &[0x25],
            &[0x2b],
            &[0x2c],
            &[0x0e],
            &[0x12, 0xff],
        ] {
            assert_eq!(fields(bytes), Err(Malformed), "{bytes:?}");
        }
        let bytes = [0x12, 3, 0x12, 2, 7, 7];
        let mut inner = Fields::within(&bytes, 2, 5);
        assert_eq!(inner.next(), Err(Malformed), "it reaches beyond its message");
    }

    static INNER: &[Known<&str>] = &[Known {
        number: 1,
        what: "text",
        holds: Holds::Bytes,
    }];
    static OUTER: &[Known<&str>] = &[
        Known {
            number: 1,
            what: "inner",
            holds: Holds::Message(INNER),
        },
        Known {
            number: 2,
            what: "numbers",
            holds: Holds::Varints,
        },
        Known {
            number: 3,
            what: "doubles",
            holds: Holds::Fixed64,
        },
    ];

    #[test]
    fn known_fields_are_told_wherever_they_are() {
        let bytes = [
            &[0x0a, 5, 0x0a, 3, 1, 2, 3][..],
            &[0x10, 0x96, 1],
            &[0x12, 4, 1, 0x96, 1, 3],
            &[0x1a, 16],
            &[0; 16],
            &[0x2a, 2, 0x0a, 0],
            &[0x0a, 0],
        ]
        .concat();
        let mut told = Vec::new();
        let walked = walk::<_, Malformed>(&bytes, OUTER, &mut |what, values, bytes| {
            told.push((*what, values, bytes));
            Ok(())
        });
        assert_eq!(walked, Ok(()));
        let wanted = [
            ("inner", 1, 5),
            ("text", 1, 3),
            ("numbers", 1, 0),
            ("numbers", 3, 4),
            ("doubles", 2, 16),
            ("inner", 1, 0),
        ];
        assert_eq!(told, wanted);
    }
}
