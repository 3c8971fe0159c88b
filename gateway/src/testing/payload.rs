//! Publications that can be recognised: each carries its number, and bytes that follow from it.

/// Filler byte `at` of publication `id`.
fn filler(id: u64, at: usize) -> u8 {
    b'a' + ((id * 7 + at as u64) % 26) as u8
}

/// JSON that carries `id`, with `pad` bytes of filler.
pub fn json(id: u64, pad: usize) -> Vec<u8> {
    let mut out = format!("{{\"id\":{id},\"pad\":\"").into_bytes();
    out.extend((0..pad).map(|at| filler(id, at)));
    out.extend_from_slice(b"\"}");
    out
}

/// Bytes that are not JSON, carrying `id`, with `pad` bytes of filler.
pub fn binary(id: u64, pad: usize) -> Vec<u8> {
    let mut out = vec![0xff];
    out.extend_from_slice(&id.to_le_bytes());
    out.extend((0..pad).map(|at| filler(id, at)));
    out
}

/// The number a payload carries, if it is as it was made, to the byte.
pub fn identify(data: &[u8]) -> Option<u64> {
    let (id, pad) = match data.strip_prefix(&[0xff]) {
        Some(rest) => (
            u64::from_le_bytes(rest.get(..8)?.try_into().ok()?),
            &rest[8..],
        ),
        None => {
            let text = std::str::from_utf8(data).ok()?;
            let (id, pad) = text
                .strip_prefix("{\"id\":")?
                .strip_suffix("\"}")?
                .split_once(",\"pad\":\"")?;
            (id.parse().ok()?, pad.as_bytes())
        }
    };
    pad.iter()
        .enumerate()
        .all(|(at, byte)| *byte == filler(id, at))
        .then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_recognised_only_whole_and_unchanged() {
        for made in [json(12, 0), json(3, 100), binary(7, 0), binary(255, 60)] {
            let id = identify(&made);
            assert!(id.is_some());
            for at in 0..made.len() {
                let mut changed = made.clone();
                changed[at] ^= 1;
                assert_ne!(identify(&changed), id);
            }
        }
        assert_eq!(identify(b"{\"id\":3,\"pad\":\"abc\"}"), None);
    }
}
