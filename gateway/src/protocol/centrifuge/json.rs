//! JSON (RFC 8259) in one pass, borrowed from its text: a strict scanner, and the writing of strings and embedded values.
//!
//! Every value that is skipped or embedded is fully checked, without recursion. The scanner's text is UTF-8 by its type.

use super::decode::DecodeError;
use std::borrow::Cow;

/// Most levels that one embedded value may nest.
pub const DEPTH_MAX: u32 = 64;

/// Whether `bytes` are one JSON value: UTF-8, the grammar of RFC 8259, at most [`DEPTH_MAX`] levels. Lone surrogates in
/// escapes are allowed, as in the grammar.
pub fn is_valid(bytes: &[u8]) -> bool {
    let Ok(text) = simdutf8::basic::from_utf8(bytes) else {
        return false;
    };
    let mut scanner = Scanner::new(text);
    scanner.skip_value().is_ok() && {
        scanner.space();
        scanner.is_at_end()
    }
}

/// A cursor in a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The next member is the first of the object that was entered last.
    pub(super) first: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            first: true,
        }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn fail<T>(&self) -> Result<T, DecodeError> {
        Err(DecodeError::Json { at: self.at })
    }

    /// Takes `byte` if it comes next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes `byte` or fails.
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), DecodeError> {
        if self.take(byte) { Ok(()) } else { self.fail() }
    }

    /// Skips white space.
    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Skips white space that does not end a line.
    pub(super) fn space_in_line(&mut self) {
        while let Some(b' ' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// A member's name with its colon.
    pub(super) fn name(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.space();
        let name = self.string()?;
        self.space();
        self.expect(b':')?;
        Ok(name)
    }

    /// Takes `null` if it comes next.
    pub(super) fn null(&mut self) -> Result<bool, DecodeError> {
        self.space();
        if self.peek() == Some(b'n') {
            self.literal("null")?;
            return Ok(true);
        }
        Ok(false)
    }

    /// A string, borrowed when it has no escapes. Lone surrogates fail: they are no text.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.expect(b'"')?;
        let start = self.at;
        self.plain();
        let plain = &self.text[start..self.at];
        if self.take(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut owned = String::from(plain);
        while self.take(b'\\') {
            owned.push(self.escape()?);
            let start = self.at;
            self.plain();
            owned.push_str(&self.text[start..self.at]);
        }
        self.expect(b'"')?;
        Ok(Cow::Owned(owned))
    }

    /// Moves to the next quote, backslash, control character or the end.
    fn plain(&mut self) {
        self.at += plain_len(&self.text.as_bytes()[self.at..]);
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, DecodeError> {
        let Some(byte) = self.peek() else {
            return self.fail();
        };
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = self.hex4()?;
                if (0xd800..0xdc00).contains(&code) && self.take(b'\\') {
                    self.expect(b'u')?;
                    let low = self.hex4()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return self.fail();
                    }
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                match char::from_u32(code) {
                    Some(character) => character,
                    None => return self.fail(),
                }
            }
            _ => return self.fail(),
        })
    }

    fn hex4(&mut self) -> Result<u32, DecodeError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return self.fail();
            };
            code = code << 4 | digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn skip_string(&mut self) -> Result<(), DecodeError> {
        self.expect(b'"')?;
        loop {
            self.plain();
            if self.take(b'"') {
                return Ok(());
            }
            self.expect(b'\\')?;
            match self.peek() {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                Some(b'u') => {
                    self.at += 1;
                    self.hex4()?;
                }
                _ => return self.fail(),
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool, DecodeError> {
        let value = self.peek() == Some(b't');
        self.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    fn literal(&mut self, literal: &str) -> Result<(), DecodeError> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return self.fail();
        }
        self.at += literal.len();
        Ok(())
    }

    /// An integer without fraction and exponent: its sign (true: minus) and magnitude.
    pub(super) fn integer(&mut self) -> Result<(bool, u64), DecodeError> {
        let start = self.at;
        let negative = self.take(b'-');
        let digits = self.at;
        let mut value = Some(0u64);
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value
                .and_then(|v| v.checked_mul(10))
                .and_then(|v| v.checked_add(u64::from(digit - b'0')));
            self.at += 1;
        }
        let count = self.at - digits;
        let leading_zero = count > 1 && self.text.as_bytes()[digits] == b'0';
        let fraction = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        match value {
            Some(value) if count > 0 && !leading_zero && !fraction => Ok((negative, value)),
            _ => {
                self.at = start;
                self.fail()
            }
        }
    }

    fn skip_number(&mut self) -> Result<(), DecodeError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.skip_digits()?;
        }
        if self.take(b'.') {
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            self.fail()
        } else {
            Ok(())
        }
    }

    /// The text of any value, checked, without the space around it.
    pub(super) fn raw(&mut self) -> Result<&'a [u8], DecodeError> {
        self.space();
        let start = self.at;
        self.skip_value()?;
        Ok(&self.text.as_bytes()[start..self.at])
    }

    /// Skips and checks any value.
    pub(super) fn skip_value(&mut self) -> Result<(), DecodeError> {
        // One bit a level, the innermost lowest: set for an object.
        let mut levels = 0u64;
        let mut depth = 0;
        loop {
            self.space();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == DEPTH_MAX {
                        return Err(DecodeError::TooDeep);
                    }
                    self.at += 1;
                    self.space();
                    let object = open == b'{';
                    if !self.take(if object { b'}' } else { b']' }) {
                        levels = levels << 1 | u64::from(object);
                        depth += 1;
                        if object {
                            self.skip_name()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.skip_string()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                Some(b'-' | b'0'..=b'9') => self.skip_number()?,
                _ => return self.fail(),
            }
            // A value is complete: close what it completes, until another must follow.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                self.space();
                let object = levels & 1 == 1;
                if self.take(b',') {
                    if object {
                        self.skip_name()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                levels >>= 1;
                depth -= 1;
            }
        }
    }

    fn skip_name(&mut self) -> Result<(), DecodeError> {
        self.space();
        self.skip_string()?;
        self.space();
        self.expect(b':')
    }
}

/// How many bytes stand before the first quote, backslash or control character.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    /// Sets the high bit of each byte below `limit` (at most 128) that is ASCII; bits above the first are unreliable.
    fn below(word: u64, limit: u64) -> u64 {
        word.wrapping_sub(ONES * limit) & !word
    }
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = (below(word, 0x20) | quote | backslash) & HIGHS;
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    bytes[at..]
        .iter()
        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
        .map_or(bytes.len(), |more| at + more)
}

/// Appends `text` as a JSON string.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_len(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&special) = rest.get(plain) else {
            break;
        };
        match special {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}

/// How many bytes [`write_string`] appends.
pub(super) fn string_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

/// Appends a JSON value without line breaks: between values of one frame they separate. In valid JSON they are white
/// space, so each becomes a space.
pub(super) fn write_raw(out: &mut Vec<u8>, mut value: &[u8]) {
    while let Some(at) = memchr::memchr2(b'\n', b'\r', value) {
        out.extend_from_slice(&value[..at]);
        out.push(b' ');
        value = &value[at + 1..];
    }
    out.extend_from_slice(value);
}

/// Appends a decimal number.
pub(super) fn write_number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_grammar_allows() {
        let nested = format!("{}1{}", "[".repeat(64), "]".repeat(64));
        let objects = format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64));
        let good = [
            "0",
            "-0",
            "1",
            "-1",
            "10",
            "1.5",
            "-1.5",
            "1e1",
            "1E+1",
            "1e-10",
            "0e0",
            "0.0",
            "123456789012345678901234567890",
            "1e999",
            "true",
            "false",
            "null",
            "\"\"",
            "\"a\"",
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u0000""#,
            r#""\uD83D\uDE00""#,
            r#""\ud800""#,
            "\"é😀\u{2028}\"",
            "[]",
            "{}",
            " [ ] ",
            "\t{\r\n}\n",
            "[1,2]",
            "[ 1 , [ ] ]",
            r#"{"a":1}"#,
            r#"{"":{"b":[{}]}}"#,
            r#"{"a":1,"a":2}"#,
            "\"\u{7f}\"",
            nested.as_str(),
            objects.as_str(),
        ];
        for text in good {
            assert!(is_valid(text.as_bytes()), "{text}");
            assert!(
                serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_the_grammar_does_not_allow() {
        let nested = format!("{}1{}", "[".repeat(65), "]".repeat(65));
        let empty_inside = format!("{}{}", "[".repeat(65), "]".repeat(65));
        let bad = [
            "",
            " ",
            "-",
            "+1",
            "01",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            "1 2",
            "NaN",
            "Infinity",
            "-Infinity",
            "tru",
            "True",
            "nul",
            "truefalse",
            "\"",
            "\"a",
            "\"\\\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\u12G4""#,
            "\"\n\"",
            "\"\t\"",
            "\"\0\"",
            "'a'",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{",
            "}",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "{\"a\" 1}",
            "{\"a\":1]",
            "{\"a\":1 \"b\":2}",
            "{,}",
            "// c\n1",
            "\u{feff}1",
            "\u{a0}1",
            nested.as_str(),
            empty_inside.as_str(),
        ];
        for text in bad {
            assert!(!is_valid(text.as_bytes()), "{text}");
        }
        assert!(!is_valid(b"\"\xff\""), "not UTF-8");
        assert!(!is_valid(b"\"\xed\xa0\x80\""), "a surrogate in UTF-8");
    }

    #[test]
    fn ten_thousand_levels_fail_without_recursion() {
        assert!(!is_valid("[".repeat(10_000).as_bytes()));
        assert!(!is_valid("{\"a\":".repeat(10_000).as_bytes()));
    }

    #[test]
    fn strings_borrow_unless_escaped() {
        let string = |text| Scanner::new(text).string();
        assert!(matches!(
            string("\"plain é\""),
            Ok(Cow::Borrowed("plain é"))
        ));
        for (text, expected) in [
            (r#""\u0041""#, "A"),
            (r#""a\n\t\"\\\/z""#, "a\n\t\"\\/z"),
            (r#""\uD83D\uDE00!""#, "😀!"),
            (
                r#""long enough to be read by words \u00e9""#,
                "long enough to be read by words é",
            ),
        ] {
            assert!(
                matches!(string(text), Ok(Cow::Owned(s)) if s == expected),
                "{text}"
            );
        }
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800A""#,
            r#""\ud800\n""#,
            r#""\ud800\ud800""#,
            "\"a",
            "a",
        ] {
            assert!(string(text).is_err(), "{text}");
        }
    }

    #[test]
    fn plain_text_ends_at_the_first_special_byte_wherever_it_stands() {
        for length in 0..40 {
            for at in 0..length {
                for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
                    for other in [b'a', 0xff, b'!', b' ', 0x7f, 0x80] {
                        let mut bytes = vec![other; length];
                        bytes[at] = special;
                        assert_eq!(plain_len(&bytes), at);
                        bytes[at] = other;
                        assert_eq!(plain_len(&bytes), length);
                    }
                }
            }
        }
    }

    #[test]
    fn written_strings_read_back() {
        for text in [
            "",
            "plain",
            "\"\\\n\r\t\u{8}\u{c}\0\u{1f}",
            "é😀 and then some more text \"quoted\"",
        ] {
            let mut out = Vec::new();
            write_string(&mut out, text);
            assert_eq!(out.len(), string_len(text));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            let written = std::str::from_utf8(&out).unwrap();
            assert_eq!(Scanner::new(written).string().unwrap(), text);
        }
    }

    #[test]
    fn line_breaks_of_embedded_values_become_spaces() {
        let mut out = Vec::new();
        write_raw(&mut out, b"{\r\n\"a\":\n1}\n");
        assert_eq!(out, b"{  \"a\": 1} ");
    }

    #[test]
    fn integers_have_no_fraction_and_fit() {
        let integer = |text| Scanner::new(text).integer().ok();
        assert_eq!(integer("18446744073709551615"), Some((false, u64::MAX)));
        assert_eq!(integer("-7,"), Some((true, 7)));
        for text in [
            "18446744073709551616",
            "1.0",
            "1e3",
            "01",
            "-",
            "",
            "x",
            "\"1\"",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }
}
