//! Close frames (RFC 6455 sections 5.5.1 and 7.4).

use super::error::WsError;
use super::frame::{CONTROL_MAX, Opcode, write_frame};

/// The most bytes a close reason can have: a control frame without its code.
pub const REASON_MAX: usize = CONTROL_MAX - 2;

/// Whether a code may be in a close frame: the registered ones, and those of frameworks and applications. 1004, 1005,
/// 1006 and 1015 are for use inside a program and never on the wire.
pub fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a close frame. A reason over [`REASON_MAX`] bytes is cut, between characters.
pub fn close_frame(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = [0; CONTROL_MAX];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + end].copy_from_slice(&reason.as_bytes()[..end]);
    write_frame(out, Opcode::Close, &payload[..2 + end]);
}

/// Reads the payload of a close frame: nothing, or a code and a reason.
pub(super) fn parse_close(payload: &[u8]) -> Result<(Option<u16>, &str), WsError> {
    match payload {
        [] => Ok((None, "")),
        [_] => Err(WsError::TruncatedCloseCode),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_valid_close_code(code) {
                return Err(WsError::InvalidCloseCode(code));
            }
            let reason = std::str::from_utf8(reason).map_err(|_| WsError::InvalidUtf8)?;
            Ok((Some(code), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_exactly_the_codes_that_may_be_on_the_wire() {
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999,
        ] {
            assert!(is_valid_close_code(code), "{code}");
        }
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert!(!is_valid_close_code(code), "{code}");
        }
    }

    #[test]
    fn writes_code_and_reason() {
        let mut out = Vec::new();
        close_frame(&mut out, 3001, "shutdown");
        assert_eq!(out, b"\x88\x0a\x0b\xb9shutdown");
        assert_eq!(parse_close(&out[2..]), Ok((Some(3001), "shutdown")));
    }

    #[test]
    fn cuts_a_long_reason_between_characters() {
        let mut out = Vec::new();
        close_frame(&mut out, 3000, &"é".repeat(100));
        let (code, reason) = parse_close(&out[2..]).expect("still UTF-8");
        assert_eq!(
            (code, reason.len()),
            (Some(3000), 122),
            "the 62nd character would end at byte 124"
        );
        out.clear();
        close_frame(&mut out, 3000, &"x".repeat(124));
        assert_eq!(out.len(), 2 + CONTROL_MAX);
    }

    #[test]
    fn refuses_what_the_rfc_refuses() {
        assert_eq!(parse_close(b""), Ok((None, "")));
        assert_eq!(parse_close(b"\x03"), Err(WsError::TruncatedCloseCode));
        assert_eq!(
            parse_close(&1005_u16.to_be_bytes()),
            Err(WsError::InvalidCloseCode(1005))
        );
        assert_eq!(parse_close(b"\x03\xe8\xff"), Err(WsError::InvalidUtf8));
    }
}
