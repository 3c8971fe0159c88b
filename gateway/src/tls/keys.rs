//! Keys of one direction of a connection, and the next ones (RFC 8446 sections 7.2 and 7.3).

use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroize;

/// Longest traffic secret: SHA-384's.
pub(super) const SECRET_MAX: usize = 48;

/// How records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl Cipher {
    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Cipher::Aes128Gcm => &aead::AES_128_GCM,
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    /// TLS 1.3 knows each with one hash only.
    fn hash(self) -> hkdf::Algorithm {
        match self {
            Cipher::Aes256Gcm => hkdf::HKDF_SHA384,
            _ => hkdf::HKDF_SHA256,
        }
    }

    fn secret_bytes(self) -> usize {
        match self {
            Cipher::Aes256Gcm => 48,
            _ => 32,
        }
    }

    /// Records after which a key must not be used any more (RFC 8446 section 5.5), with room for what is under way.
    pub(super) fn records_max(self) -> u64 {
        match self {
            Cipher::Chacha20Poly1305 => u64::MAX / 2,
            _ => (1 << 24) - (1 << 12),
        }
    }
}

/// One direction: its key, its nonces, how many records it has sealed or opened.
pub(super) struct Keys {
    key: [u8; 32],
    iv: [u8; aead::NONCE_LEN],
    pub(super) sequence: u64,
}

impl Keys {
    /// What a handshake agreed on.
    pub(super) fn of(
        (sequence, secrets): &(u64, ConnectionTrafficSecrets),
    ) -> Option<(Cipher, Self)> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Cipher::Chacha20Poly1305, key, iv)
            }
            _ => return None,
        };
        let mut keys = Self {
            key: [0; 32],
            iv: iv.as_ref().try_into().ok()?,
            sequence: *sequence,
        };
        keys.key
            .get_mut(..key.as_ref().len())?
            .copy_from_slice(key.as_ref());
        Some((cipher, keys))
    }

    /// Makes the key ready for use.
    pub(super) fn expand(&self, cipher: Cipher) -> LessSafeKey {
        let algorithm = cipher.algorithm();
        let key = UnboundKey::new(algorithm, &self.key[..algorithm.key_len()]);
        LessSafeKey::new(key.expect("a key of the algorithm's length"))
    }

    /// The nonce of the next record: the number, laid over the initial value.
    pub(super) fn nonce(&self) -> [u8; aead::NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }

    /// TLS 1.2 with AES: the last eight bytes of the nonce stand in the record.
    pub(super) fn explicit_nonce(&self, explicit: &[u8]) -> [u8; aead::NONCE_LEN] {
        let mut nonce = self.iv;
        nonce[4..].copy_from_slice(explicit);
        nonce
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}

/// A nonce that is used once, as the number in it is.
pub(super) fn nonce(bytes: [u8; aead::NONCE_LEN]) -> Nonce {
    Nonce::assume_unique_for_key(bytes)
}

/// A traffic secret of TLS 1.3. All zero: there is none, in TLS 1.2.
#[derive(Clone)]
pub(super) struct Secret(pub(super) [u8; SECRET_MAX]);

impl Secret {
    pub(super) const NONE: Secret = Secret([0; SECRET_MAX]);

    /// The secret behind this one, and its keys.
    pub(super) fn update(&mut self, cipher: Cipher) -> Keys {
        let mut next = Secret::NONE;
        expand_label(
            cipher,
            &self.0,
            b"traffic upd",
            &mut next.0[..cipher.secret_bytes()],
        );
        *self = next;
        let mut keys = Keys {
            key: [0; 32],
            iv: [0; aead::NONCE_LEN],
            sequence: 0,
        };
        expand_label(
            cipher,
            &self.0,
            b"key",
            &mut keys.key[..cipher.algorithm().key_len()],
        );
        expand_label(cipher, &self.0, b"iv", &mut keys.iv);
        keys
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand_label(cipher: Cipher, secret: &[u8; SECRET_MAX], label: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let secret = hkdf::Prk::new_less_safe(cipher.hash(), &secret[..cipher.secret_bytes()]);
    let info: [&[u8]; 5] = [
        &(out.len() as u16).to_be_bytes(),
        &[6 + label.len() as u8],
        b"tls13 ",
        label,
        &[0],
    ];
    let made = secret.expand(&info, Length(out.len()));
    made.and_then(|made| made.fill(out))
        .expect("far below 255 times the hash");
}
