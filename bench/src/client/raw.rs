//! Any WebSocket server, by templates: what to say, and how a payload stands in what arrives.
//!
//! Placeholders in what is sent: `{channel}`, `{data}` (the payload, a JSON string), `{size}` (its bytes), `{id}` (the
//! message's number), `{token}`; all other text stands for itself, braces too. `\r`, `\n`, `\t`, `\0` and `\\` are
//! escapes. In what arrives `{data}` is where the payload is; the text around it must be there byte by byte.

use memchr::memmem::Finder;

use super::frames::{self, Opcode};
use super::payload;

/// Text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Channel,
    Data,
    Size,
    Id,
    Token,
}

const PLACEHOLDERS: [(&str, Part); 5] = [
    ("{channel}", Part::Channel),
    ("{data}", Part::Data),
    ("{size}", Part::Size),
    ("{id}", Part::Id),
    ("{token}", Part::Token),
];

/// What placeholders stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    pub channel: &'a str,
    pub data: &'a [u8],
    pub id: u64,
    pub token: &'a str,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// An escape that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut run, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some(first) = rest.chars().next() {
            if let Some((name, part)) = PLACEHOLDERS.iter().find(|(name, _)| rest.starts_with(name))
            {
                if !run.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut run)));
                }
                parts.push(part.clone());
                rest = &rest[name.len()..];
                continue;
            }
            rest = &rest[first.len_utf8()..];
            if first != '\\' {
                run.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            run.push(match rest.bytes().next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                _ => return Err(format!("{text}: \\r \\n \\t \\0 and \\\\ are the escapes")),
            });
            rest = &rest[1..];
        }
        if !run.is_empty() {
            parts.push(Part::Text(run));
        }
        Ok(Self(parts))
    }

    /// The text with `values` in place of the placeholders.
    pub fn fill(&self, values: Values<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(values.data.len() + 64);
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Channel => out.extend_from_slice(values.channel.as_bytes()),
                Part::Data => out.extend_from_slice(values.data),
                Part::Size => out.extend_from_slice(values.data.len().to_string().as_bytes()),
                Part::Id => out.extend_from_slice(values.id.to_string().as_bytes()),
                Part::Token => out.extend_from_slice(values.token.as_bytes()),
            }
        }
        out
    }
}

/// How a payload stands in what arrives.
#[derive(Clone, Debug)]
pub struct Match {
    /// Of what stands before it, and its marker; made once, since it is asked for every frame.
    finder: Finder<'static>,
    suffix: Vec<u8>,
}

impl Match {
    /// Reads `PREFIX{data}SUFFIX`.
    ///
    /// # Errors
    /// When that is not its shape.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape =
            || format!("{text}: a match is PREFIX{{data}}SUFFIX without other placeholders");
        let literal = |parts: &[Part]| match parts {
            [] => Ok(Vec::new()),
            [Part::Text(text)] => Ok(text.clone()),
            _ => Err(shape()),
        };
        let Template(parts) = Template::parse(text)?;
        let at = parts.iter().position(|part| *part == Part::Data);
        let at = at.ok_or_else(shape)?;
        let mut needle = literal(&parts[..at])?;
        needle.extend_from_slice(payload::MARKER);
        Ok(Self {
            finder: Finder::new(&needle).into_owned(),
            suffix: literal(&parts[at + 1..])?,
        })
    }

    /// Hands each payload of a message to `on`, from its first byte to where the next begins; a message without one as
    /// it is, if it is not empty.
    pub fn each<'a>(&self, message: &'a [u8], mut on: impl FnMut(&'a [u8])) {
        let ahead = self.finder.needle().len() - payload::MARKER.len();
        let mut starts = self.finder.find_iter(message).peekable();
        if starts.peek().is_none() {
            if !message.is_empty() {
                on(message);
            }
            return;
        }
        while let Some(start) = starts.next() {
            let end = starts.peek().map_or(message.len(), |next| *next + ahead);
            on(&message[start + ahead..end]);
        }
    }

    /// True when `rest`, what follows a payload, is as it should be.
    pub fn ends_with(&self, rest: &[u8]) -> bool {
        rest.starts_with(&self.suffix)
    }
}

/// How to speak to a server that has its own protocol.
#[derive(Clone, Debug)]
pub struct Raw {
    pub opcode: Opcode,
    pub subprotocol: Option<String>,
    /// What a member says once it is connected, a message each, and how many messages it awaits until it has joined.
    pub hello: Vec<Template>,
    pub replies: u8,
    /// The same for a connection that publishes.
    pub publisher_hello: Vec<Template>,
    pub publisher_replies: u8,
    pub publish: Template,
    pub matches: Match,
    /// Messages that want an answer: a heartbeat, say.
    pub answers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Raw {
    /// Echoes: what is sent comes back as it is.
    pub fn echo(opcode: Opcode) -> Self {
        Self {
            opcode,
            subprotocol: None,
            hello: Vec::new(),
            replies: 0,
            publisher_hello: Vec::new(),
            publisher_replies: 0,
            publish: Template(vec![Part::Data]),
            matches: Match::parse("{data}").expect("a constant"),
            answers: Vec::new(),
        }
    }

    /// The frames a connection begins with; one without a channel publishes.
    pub fn hello_frames(&self, id: u64, token: Option<&str>, channel: Option<&str>) -> Vec<u8> {
        let templates = match channel {
            Some(_) => &self.hello,
            None => &self.publisher_hello,
        };
        let values = Values {
            channel: channel.unwrap_or_default(),
            token: token.unwrap_or_default(),
            id,
            data: b"",
        };
        let mut out = Vec::new();
        for template in templates {
            frames::write_masked(&mut out, self.opcode, &template.fill(values));
        }
        out
    }

    /// Messages a connection awaits until it has joined.
    pub fn awaited(&self, channel: bool) -> u8 {
        match channel {
            true => self.replies,
            false => self.publisher_replies,
        }
    }

    /// The answer that `message` wants.
    pub fn answer_to(&self, message: &[u8]) -> Option<&[u8]> {
        let found = self.answers.iter().find(|(asked, _)| asked == message);
        found.map(|(_, answer)| answer.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_placeholders_and_leaves_other_braces_alone() {
        let template =
            Template::parse(r#"PUB {channel} {size}\r\n{data} {} {"a":{id}}\\"#).unwrap();
        let filled = template.fill(Values {
            channel: "room",
            data: b"\"x\"",
            id: 7,
            token: "",
        });
        assert_eq!(filled, b"PUB room 3\r\n\"x\" {} {\"a\":7}\\");
        assert!(Template::parse(r"\q").is_err());
    }

    #[test]
    fn finds_each_payload_between_its_neighbours_only() {
        let matches = Match::parse(r"MSG\r\n{data}\r\n").unwrap();
        let found = |message: &'static str| {
            let mut found = Vec::new();
            matches.each(message.as_bytes(), |part| {
                found.push(std::str::from_utf8(part).unwrap())
            });
            found
        };
        assert_eq!(
            found("MSG\r\n\"~rwb1\"\r\nMSG\r\n\"~rwb2\"\r\n"),
            ["\"~rwb1\"\r\nMSG\r\n", "\"~rwb2\"\r\n"]
        );
        assert_eq!(found("PUB\r\n\"~rwb1\"\r\n"), ["PUB\r\n\"~rwb1\"\r\n"]);
        assert!(matches.ends_with(b"\r\nMSG") && !matches.ends_with(b"]"));
        assert!(Match::parse("no data").is_err() && Match::parse("{id}{data}").is_err());
    }
}
