//! Negotiating permessage-deflate (RFC 6455 section 9.1, RFC 7692 section 7.1).

use super::deflate::WINDOW_BITS_MAX;

const NAME: &str = "permessage-deflate";

/// An offer of permessage-deflate that can be accepted. Neither side takes over its context: RFC 7692 lets a server decide
/// that for both (sections 7.1.1.1 and 7.1.1.2). The window in which the client compresses is its own affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateOffer {
    /// The largest window the client inflates with, 8 to 15 bits, if it says so.
    server_max_window_bits: Option<u8>,
}

impl DeflateOffer {
    /// The first offer of a `Sec-WebSocket-Extensions` line that can be accepted. One with a parameter that is unknown,
    /// malformed or there twice is passed over, as section 7.1 wants it.
    pub fn first(line: &str) -> Option<Self> {
        split_outside_quotes(line, ',').find_map(Self::parse)
    }

    fn parse(offer: &str) -> Option<Self> {
        let mut parts = split_outside_quotes(offer, ';').map(trim);
        if parts.next() != Some(NAME) {
            return None;
        }
        let mut seen = Vec::new();
        let mut server_max_window_bits = None;
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (trim(name), Some(unquote(trim(value))?)),
                None => (part, None),
            };
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover", None)
                | ("client_max_window_bits", None) => {}
                ("client_max_window_bits", Some(value)) => {
                    window_bits(value)?;
                }
                ("server_max_window_bits", Some(value)) => {
                    server_max_window_bits = Some(window_bits(value)?);
                }
                _ => return None,
            }
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
        }
        Some(Self {
            server_max_window_bits,
        })
    }

    /// The window that what is sent may need at most, in bits.
    pub fn window_bits(self) -> u8 {
        self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX)
    }

    /// Appends the value of `Sec-WebSocket-Extensions` that accepts it.
    pub fn write_response(self, out: &mut Vec<u8>) {
        out.extend_from_slice(NAME.as_bytes());
        out.extend_from_slice(b"; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_max_window_bits {
            out.extend_from_slice(format!("; server_max_window_bits={bits}").as_bytes());
        }
    }
}

/// 8 to 15, without leading zeros (section 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=15).contains(bits))?;
    (value.len() == if bits < 10 { 1 } else { 2 }).then_some(bits)
}

/// What a value says: a token, or one in quotes (RFC 6455 section 9.1). `None`: an open quote. Nothing here needs a
/// backslash, so a value with one is not among those that are known.
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The parts of `text` between separators that are not within quotes.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        let is_literal = std::mem::take(&mut is_escaped);
        match c {
            _ if is_literal => {}
            '"' => is_quoted = !is_quoted,
            '\\' => is_escaped = is_quoted,
            _ => return c == separator && !is_quoted,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(line: &str) -> Option<String> {
        let mut out = Vec::new();
        DeflateOffer::first(line)?.write_response(&mut out);
        Some(String::from_utf8(out).expect("ASCII"))
    }

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn accepts_what_clients_offer() {
        for line in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=15;server_no_context_takeover",
            " permessage-deflate ;\tclient_no_context_takeover",
            "permessage-deflate; client_max_window_bits=\"8\"",
            "x-webkit-deflate-frame, permessage-deflate",
            "x-other; says=\"permessage-deflate, \\\" ; \", permessage-deflate",
            ",, permessage-deflate,",
        ] {
            assert_eq!(response(line).as_deref(), Some(PLAIN), "{line}");
            assert_eq!(DeflateOffer::first(line).map(|o| o.window_bits()), Some(15));
        }
    }

    #[test]
    fn honours_every_window() {
        for bits in 8..=15 {
            for quote in ["", "\""] {
                let line =
                    format!("permessage-deflate; server_max_window_bits={quote}{bits}{quote}");
                let expected = format!("{PLAIN}; server_max_window_bits={bits}");
                assert_eq!(response(&line), Some(expected));
                assert_eq!(
                    DeflateOffer::first(&line).map(|o| o.window_bits()),
                    Some(bits)
                );
            }
        }
    }

    #[test]
    fn passes_over_what_it_must_decline() {
        for offer in [
            "",
            "deflate",
            "permessage-deflated",
            "Permessage-Deflate",
            "permessage-bzip2",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover=",
            "permessage-deflate; client_no_context_takeover=\"\"",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=-9",
            "permessage-deflate; server_max_window_bits=1000000000000",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate;",
            "permessage-deflate; ; client_max_window_bits",
            "permessage-deflate; =10",
        ] {
            assert_eq!(response(offer), None, "{offer}");
            // And whoever has another offer behind it gets that.
            let line = format!("{offer}, permessage-deflate; server_max_window_bits=11");
            let is_open = offer.matches('"').count() % 2 == 1;
            let expected = (!is_open).then(|| format!("{PLAIN}; server_max_window_bits=11"));
            assert_eq!(response(&line), expected, "{line}");
        }
    }

    #[test]
    fn takes_the_first_of_several() {
        let line = "permessage-deflate; server_max_window_bits=10, permessage-deflate";
        let expected = format!("{PLAIN}; server_max_window_bits=10");
        assert_eq!(response(line), Some(expected));
    }
}
