//! Channel names: their parts, and their form as one token of a NATS subject.

use super::codes::ReplyError;

/// Longest name, bytes.
pub const NAME_MAX: usize = 255;

/// Why text is no channel name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// No name at all.
    #[error("channel name is empty")]
    Empty,
    /// Longer than [`NAME_MAX`].
    #[error("channel name has {got} bytes, more than {NAME_MAX}")]
    TooLong {
        /// How long.
        got: usize,
    },
    /// A byte that is not printable ASCII.
    #[error("channel name is not printable ASCII at byte {at}")]
    NotPrintable {
        /// Where.
        at: usize,
    },
    /// What stands before the first `:` can be no namespace.
    #[error("namespace of the channel cannot be")]
    Namespace,
}

impl ChannelNameError {
    /// What a client is told.
    pub fn reply(self) -> ReplyError {
        match self {
            Self::Namespace => ReplyError::UNKNOWN_CHANNEL,
            Self::Empty | Self::TooLong { .. } | Self::NotPrintable { .. } => {
                ReplyError::BAD_REQUEST
            }
        }
    }
}

/// A channel's name that keeps the rules: 1 to [`NAME_MAX`] bytes of printable ASCII,
/// `[$][namespace:]rest[#user,user…]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelName<'a> {
    name: &'a str,
    namespace: &'a str,
}

impl<'a> ChannelName<'a> {
    /// Checks a name.
    pub fn parse(name: &'a str) -> Result<Self, ChannelNameError> {
        if name.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        if name.len() > NAME_MAX {
            return Err(ChannelNameError::TooLong { got: name.len() });
        }
        if let Some(at) = name.bytes().position(|byte| !matches!(byte, b' '..=b'~')) {
            return Err(ChannelNameError::NotPrintable { at });
        }
        let namespace = match name.strip_prefix('$').unwrap_or(name).split_once(':') {
            None => "",
            Some((namespace, _)) if is_namespace(namespace) => namespace,
            Some(_) => return Err(ChannelNameError::Namespace),
        };
        Ok(Self { name, namespace })
    }

    /// The whole name.
    pub fn as_str(&self) -> &'a str {
        self.name
    }

    /// The namespace; "" for channels without one.
    pub fn namespace(&self) -> &'a str {
        self.namespace
    }

    /// Whether a subscription always needs a token: the name starts with `$`.
    pub fn is_private(&self) -> bool {
        self.name.starts_with('$')
    }

    /// Whether the name lists its users, behind the last `#`.
    pub fn is_user_limited(&self) -> bool {
        self.name.contains('#')
    }

    /// Whether the name lists this user. Never true for the anonymous user, and for names without a list.
    pub fn is_user_allowed(&self, user: &str) -> bool {
        match self.name.rsplit_once('#') {
            Some((_, users)) if !user.is_empty() => users.split(',').any(|name| name == user),
            _ => false,
        }
    }
}

/// Whether text can be a namespace: two or more of `[-a-zA-Z0-9_]`.
pub fn is_namespace(text: &str) -> bool {
    text.len() >= 2 && text.bytes().all(is_plain)
}

/// Bytes that stand for themselves in a subject token, and may stand in a namespace.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Appends the name as one token of a subject: `[A-Za-z0-9_-]` as they are, other bytes as `=HH`.
pub fn push_subject_token(out: &mut String, name: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in name.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('=');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The name that [`push_subject_token`] wrote. `None` for a token that it does not write: each name has one.
pub fn from_subject_token(token: &str) -> Option<String> {
    let hex = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut name = Vec::with_capacity(token.len());
    let mut bytes = token.as_bytes();
    loop {
        match bytes {
            [] => return String::from_utf8(name).ok(),
            [b'=', high, low, rest @ ..] => {
                let byte = hex(high)? << 4 | hex(low)?;
                if is_plain(byte) {
                    return None;
                }
                name.push(byte);
                bytes = rest;
            }
            [byte, rest @ ..] if is_plain(*byte) => {
                name.push(*byte);
                bytes = rest;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_stand_before_the_first_colon_without_the_private_prefix() {
        for (name, namespace) in [
            ("room", ""),
            ("$room", ""),
            ("ns:room", "ns"),
            ("$ns:room", "ns"),
            ("ns:a:b", "ns"),
            ("ns:", "ns"),
            ("a-_9:x", "a-_9"),
            ("with space", ""),
            ("a/b*&", ""),
            ("$", ""),
            ("~", ""),
        ] {
            assert_eq!(
                ChannelName::parse(name).unwrap().namespace(),
                namespace,
                "{name}"
            );
        }
    }

    #[test]
    fn names_that_break_the_rules_get_their_error() {
        use ChannelNameError::{Empty, Namespace, NotPrintable, TooLong};
        let long = "x".repeat(256);
        for (name, error) in [
            ("", Empty),
            (&long, TooLong { got: 256 }),
            ("é", NotPrintable { at: 0 }),
            ("a\n", NotPrintable { at: 1 }),
            ("ab\u{7f}", NotPrintable { at: 2 }),
            (":x", Namespace),
            ("$:x", Namespace),
            ("a:x", Namespace),
            ("a.b:x", Namespace),
            ("dm#1:2", Namespace),
        ] {
            assert_eq!(ChannelName::parse(name), Err(error), "{name}");
        }
        assert!(ChannelName::parse(&long[..255]).is_ok());
        assert_eq!(Namespace.reply(), ReplyError::UNKNOWN_CHANNEL);
        assert_eq!(Empty.reply(), ReplyError::BAD_REQUEST);
    }

    #[test]
    fn user_lists_allow_exactly_the_listed() {
        let allowed = |name, user| ChannelName::parse(name).unwrap().is_user_allowed(user);
        assert!(allowed("ns:dm#42,43", "42") && allowed("ns:dm#42,43", "43"));
        assert!(!allowed("dm#42,43", "4") && !allowed("dm#42,43", "42,43"));
        assert!(allowed("dm#1#2", "2") && !allowed("dm#1#2", "1"));
        assert!(
            !allowed("dm#", "") && !allowed("dm#,", ""),
            "never the anonymous user"
        );
        assert!(!allowed("dm", "dm"));
        assert!(!ChannelName::parse("dm").unwrap().is_user_limited());
        assert!(ChannelName::parse("$dm#1").unwrap().is_private());
    }

    #[test]
    fn subject_tokens_are_one_to_one() {
        for (name, token) in [
            ("room", "room"),
            ("ns:a b.c", "ns=3Aa=20b=2Ec"),
            ("*>=~", "=2A=3E=3D=7E"),
            ("A-z_9", "A-z_9"),
            ("", ""),
        ] {
            let mut out = String::new();
            push_subject_token(&mut out, name);
            assert_eq!(out, token);
            assert_eq!(from_subject_token(token).as_deref(), Some(name));
        }
        for token in [
            "=", "=4", "=3a", "=41", "=5F", "a.b", "a b", "é", "=G0", "=FF",
        ] {
            assert_eq!(from_subject_token(token), None, "{token}");
        }
        let all: String = (0u8..0x80).map(char::from).collect();
        let mut out = String::new();
        push_subject_token(&mut out, &all);
        assert_eq!(from_subject_token(&out), Some(all));
    }
}
