//! Reading messages, once for both encodings: [`Fields`] walks the fields of a message, whatever it is written in.

use super::Encoding;
use super::json::Scanner;
use super::protobuf::Reader;
use super::schema::Schema;
use std::borrow::Cow;

/// Why bytes are no message. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No message at all.
    #[error("no command")]
    Empty,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// Not JSON, or not the type that the field has.
    #[error("unexpected JSON at byte {at}")]
    Json {
        /// Where, from the start of the payload.
        at: usize,
    },
    /// A JSON value nests deeper than [`super::json::DEPTH_MAX`].
    #[error("JSON nests too deeply")]
    TooDeep,
    /// A Protobuf field ends behind the end.
    #[error("Protobuf field is cut")]
    Truncated,
    /// A Protobuf varint over 64 bits.
    #[error("Protobuf varint is too long")]
    Varint,
    /// A Protobuf field number or wire type that cannot be.
    #[error("Protobuf tag is wrong")]
    Tag,
    /// A number that its field cannot hold.
    #[error("number is out of range")]
    Range,
}

/// The fields of a message, one after the other. After [`Fields::next`] gave a field, exactly one of the other methods
/// must be called, to take its value. A JSON `null` counts as the field's zero value.
pub(super) trait Fields<'a>: Sized {
    /// The next known field; unknown ones are checked and skipped. `None` at the end of the message.
    fn next<S: Schema>(&mut self) -> Result<Option<S>, DecodeError>;
    /// Text, borrowed when it has no escapes.
    fn string(&mut self) -> Result<Cow<'a, str>, DecodeError>;
    /// Bytes; in JSON the text of any value, `null` included.
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError>;
    fn boolean(&mut self) -> Result<bool, DecodeError>;
    fn u64(&mut self) -> Result<u64, DecodeError>;
    fn i64(&mut self) -> Result<i64, DecodeError>;
    /// Checks and skips the value; whether there was one (not `null`).
    fn skip(&mut self) -> Result<bool, DecodeError>;
    /// A message in a field: `read` must walk it to its end. `None`: `null`.
    fn message<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError>;
    /// A repeated field: `read` is called at each value. (In Protobuf each value is a field of its own.)
    fn each(
        &mut self,
        read: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError>;
    /// A map: `read` is called with each key, at its value. (In Protobuf each entry is a field of its own.)
    fn entries(
        &mut self,
        read: impl FnMut(Cow<'a, str>, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError>;

    fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.u64()?).map_err(|_| DecodeError::Range)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        i32::try_from(self.i64()?).map_err(|_| DecodeError::Range)
    }
}

impl<'a> Fields<'a> for Scanner<'a> {
    fn next<S: Schema>(&mut self) -> Result<Option<S>, DecodeError> {
        loop {
            self.space();
            if self.take(b'}') {
                return Ok(None);
            }
            if !self.first {
                self.expect(b',')?;
            }
            self.first = false;
            if let Some(field) = S::from_name(&self.name()?) {
                return Ok(Some(field));
            }
            self.skip_value()?;
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        if self.null()? {
            return Ok(Cow::Borrowed(""));
        }
        Scanner::string(self)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        self.raw()
    }

    fn boolean(&mut self) -> Result<bool, DecodeError> {
        Ok(!self.null()? && Scanner::boolean(self)?)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        if self.null()? {
            return Ok(0);
        }
        match self.integer()? {
            (true, 1..) => Err(DecodeError::Range),
            (_, value) => Ok(value),
        }
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        if self.null()? {
            return Ok(0);
        }
        let (negative, value) = self.integer()?;
        let value = if negative {
            0i64.checked_sub_unsigned(value)
        } else {
            i64::try_from(value).ok()
        };
        value.ok_or(DecodeError::Range)
    }

    fn skip(&mut self) -> Result<bool, DecodeError> {
        if self.null()? {
            return Ok(false);
        }
        self.skip_value()?;
        Ok(true)
    }

    fn message<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.null()? {
            return Ok(None);
        }
        self.expect(b'{')?;
        self.first = true;
        let message = read(self)?;
        self.first = false;
        Ok(Some(message))
    }

    fn each(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if self.null()? {
            return Ok(());
        }
        self.expect(b'[')?;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            read(self)?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn entries(
        &mut self,
        mut read: impl FnMut(Cow<'a, str>, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if self.null()? {
            return Ok(());
        }
        self.expect(b'{')?;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.name()?;
            read(key, self)?;
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }
}

impl<'a> Fields<'a> for Reader<'a> {
    fn next<S: Schema>(&mut self) -> Result<Option<S>, DecodeError> {
        while let Some(number) = self.tag()? {
            if let Some(field) = S::from_number(number) {
                return Ok(Some(field));
            }
            self.skip_field()?;
        }
        Ok(None)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.str().map(Cow::Borrowed)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        self.delimited()
    }

    fn boolean(&mut self) -> Result<bool, DecodeError> {
        Ok(self.number()? != 0)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.number()
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        // Negative numbers are written in two's complement, in ten bytes.
        Ok(self.number()? as i64)
    }

    fn skip(&mut self) -> Result<bool, DecodeError> {
        self.skip_field()?;
        Ok(true)
    }

    fn message<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        read(&mut Reader::new(self.delimited()?)).map(Some)
    }

    fn each(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        read(self)
    }

    fn entries(
        &mut self,
        mut read: impl FnMut(Cow<'a, str>, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        // Key and value may stand in any order, or be left out when empty.
        let mut entry = Reader::new(self.delimited()?);
        let mut key = "";
        let mut value = Reader::empty_value();
        while let Some(number) = entry.tag()? {
            match number {
                1 => key = entry.str()?,
                2 => {
                    value = entry.clone();
                    entry.skip_field()?;
                }
                _ => entry.skip_field()?,
            }
        }
        read(Cow::Borrowed(key), &mut value)
    }
}

/// The messages of one payload.
#[derive(Clone, Debug)]
pub(super) struct Payload<'a> {
    source: Source<'a>,
    /// There was one before.
    any: bool,
}

#[derive(Clone, Debug)]
enum Source<'a> {
    Json(Scanner<'a>),
    Protobuf(Reader<'a>),
    Failed(DecodeError),
    Ended,
}

impl<'a> Payload<'a> {
    pub(super) fn new(encoding: Encoding, payload: &'a [u8]) -> Self {
        let source = match encoding {
            Encoding::Json => match simdutf8::basic::from_utf8(payload) {
                Ok(text) => Source::Json(Scanner::new(text)),
                Err(_) => Source::Failed(DecodeError::Utf8),
            },
            Encoding::Protobuf => Source::Protobuf(Reader::new(payload)),
        };
        Self { source, any: false }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        match &self.source {
            // What separates two objects comes before none.
            Source::Json(scanner) => scanner.rest().trim_ascii_start(),
            Source::Protobuf(reader) => reader.rest(),
            Source::Failed(_) | Source::Ended => &[],
        }
    }

    /// The next message, read by one of two instances of the same function. `None` at the end and after an error; an
    /// error when there was no message at all.
    pub(super) fn next<T>(
        &mut self,
        json: impl FnOnce(&mut Scanner<'a>) -> Result<T, DecodeError>,
        protobuf: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Option<Result<T, DecodeError>> {
        let message = match &mut self.source {
            Source::Json(scanner) => match next_object(scanner, self.any) {
                Ok(true) => scanner.message(json),
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            },
            Source::Protobuf(reader) if reader.is_at_end() => Ok(None),
            Source::Protobuf(reader) => reader.message(protobuf),
            Source::Failed(error) => Err(*error),
            Source::Ended => return None,
        };
        let message = match message {
            Ok(None) if !self.any => Err(DecodeError::Empty),
            other => other,
        };
        self.any = true;
        if !matches!(message, Ok(Some(_))) {
            self.source = Source::Ended;
        }
        message.transpose()
    }
}

/// Moves to the next of the objects that line feeds separate; false at the end.
fn next_object(scanner: &mut Scanner<'_>, any: bool) -> Result<bool, DecodeError> {
    scanner.space_in_line();
    if any && !scanner.is_at_end() {
        scanner.expect(b'\n')?;
        scanner.space_in_line();
    }
    match scanner.peek() {
        Some(b'{') => Ok(true),
        Some(_) => scanner.fail(),
        None => Ok(false),
    }
}

/// Walks a message of which nothing is wanted.
pub(super) fn nothing<'a, F: Fields<'a>>(fields: &mut F) -> Result<(), DecodeError> {
    match fields.next::<super::schema::Nothing>()? {
        None => Ok(()),
        Some(field) => match field {},
    }
}
