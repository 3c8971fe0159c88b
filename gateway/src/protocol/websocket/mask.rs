//! Masking (RFC 6455 section 5.3): XOR with a key of four bytes that repeats.

/// Masks or unmasks in place; the first byte meets `key[0]`. For a payload that arrives in pieces, see [`rotate_mask`].
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    // Eight bytes at a time: two keys side by side. The compiler widens this loop to vector registers by itself.
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// The key for what follows after `done` bytes of the payload.
pub fn rotate_mask(mut key: [u8; 4], done: usize) -> [u8; 4] {
    key.rotate_left(done % 4);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 5.3, to the letter.
    fn naive(bytes: &mut [u8], key: [u8; 4]) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte ^= key[i % 4];
        }
    }

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + 7) as u8).collect()
    }

    #[test]
    fn equals_the_naive_twin_at_every_length_and_alignment() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for start in 0..9 {
            for len in 0..130 {
                let mut fast = payload(start + len);
                let mut slow = fast.clone();
                apply_mask(&mut fast[start..], key);
                naive(&mut slow[start..], key);
                assert_eq!(fast, slow, "start {start}, length {len}");
            }
        }
    }

    #[test]
    fn a_payload_in_two_pieces_equals_the_whole() {
        let key = [1, 2, 3, 4];
        for cut in 0..40 {
            let mut whole = payload(40);
            let mut pieces = whole.clone();
            apply_mask(&mut whole, key);
            let (head, tail) = pieces.split_at_mut(cut);
            apply_mask(head, key);
            apply_mask(tail, rotate_mask(key, cut));
            assert_eq!(whole, pieces, "cut at {cut}");
        }
    }

    #[test]
    fn masking_twice_gives_the_payload_back() {
        let mut bytes = payload(1000);
        apply_mask(&mut bytes, [9, 8, 7, 6]);
        apply_mask(&mut bytes, [9, 8, 7, 6]);
        assert_eq!(bytes, payload(1000));
    }
}
