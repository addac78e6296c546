//! Secret keys under a passphrase: encrypted PKCS#8 (RFC 5958; RFC 8410 for Ed25519), as OpenSSL reads and writes it too.
//!
//! Encryption alone does not tell a damaged file from a whole one: what is damaged in it opens to another key. The public key therefore
//! stands in clear before the key itself, where RFC 7468 (section 2) has room for words and other programs look past it, and what
//! the passphrase opens must be the other half of that.
//!
//! What stretches the passphrase is scrypt with 16 MiB, five times over. Other programs' key files may ask for more work; how much
//! is done for them is capped, as a file is no reason to take all memory of a PC.

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use pkcs8::pkcs5::{EncryptionScheme, pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};
use zeroize::Zeroizing;

use super::key::{PublicKey, SecretKey};
use crate::document::Mistake;

/// The label of an encrypted key.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// Characters of the shortest passphrase that a key is encrypted with.
pub const PASSPHRASE_MIN: usize = 8;

/// scrypt: 2 to this many blocks of 1 KiB at a time, and how often.
const COST: (u8, u32, u32) = (14, 8, 5);
/// Most memory that scrypt may take for a key's file, in bytes: a file from elsewhere must not take a PC's memory, or a day.
const MEMORY_MAX: u64 = 256 << 20;
/// Largest parallelization of scrypt that a key's file may ask for (`p` of RFC 7914), for the same reason as [`MEMORY_MAX`].
const WORK_MAX: u64 = 16;
/// Most rounds of PBKDF2 that a key's file may ask for, for the same reason as [`MEMORY_MAX`].
const ROUNDS_MAX: u32 = 10_000_000;

impl SecretKey {
    /// Encrypts the key for its file, readable with the passphrase alone. The 32 random bytes have to come from the operating system.
    ///
    /// # Errors
    /// The passphrase is too short.
    pub fn encrypted(
        &self,
        passphrase: &str,
        random: &Zeroizing<[u8; 32]>,
    ) -> Result<Zeroizing<String>, Mistake> {
        if passphrase.chars().count() < PASSPHRASE_MIN {
            return Err(Mistake::new(
                format!("the passphrase is shorter than {PASSPHRASE_MIN} characters"),
                "choose one that nobody guesses: four words that do not belong together are good",
            ));
        }
        let impossible = || Mistake::new("the key cannot be encrypted", "report this as a fault");
        let (salt, iv) = random.split_at(16);
        let iv = <&[u8; 16]>::try_from(iv).map_err(|_| impossible())?;
        let (cost, block, parallel) = COST;
        let cost = scrypt::Params::new(cost, block, parallel, 32).map_err(|_| impossible())?;
        let parameters =
            pbes2::Parameters::scrypt_aes256cbc(cost, salt, iv).map_err(|_| impossible())?;
        // Without its public half, as OpenSSL writes it; older ones read no other form.
        let pair = KeypairBytes { secret_key: self.signing().to_bytes(), public_key: None };
        let plain: SecretDocument = pair.to_pkcs8_der().map_err(|_| impossible())?;
        let info: PrivateKeyInfo<'_> = plain.decode_msg().map_err(|_| impossible())?;
        let encrypted =
            info.encrypt_with_params(parameters, passphrase).map_err(|_| impossible())?;
        let pem = encrypted.to_pem(LABEL, LineEnding::LF).map_err(|_| impossible())?;
        Ok(Zeroizing::new(format!("{}\n{}", self.public(), pem.as_str())))
    }

    /// Returns whether a key's file wants a passphrase.
    #[must_use]
    pub fn is_encrypted(text: &str) -> bool {
        text.contains(&format!("-----BEGIN {LABEL}-----"))
    }

    /// Reads what [`SecretKey::encrypted`] wrote, or another program.
    ///
    /// # Errors
    /// The passphrase is wrong, the file is damaged, or it is something else.
    pub fn decrypt(text: &str, passphrase: &str) -> Result<Self, Mistake> {
        let damaged = || {
            Mistake::new(
                "this encrypted key is damaged",
                "take the copy that you keep elsewhere, or have a new key made and trusted",
            )
        };
        let (words, pem) = text.split_at(text.find("-----BEGIN ").ok_or_else(damaged)?);
        let public = match words.trim() {
            // Another program wrote it.
            "" => None,
            key => Some(key.parse::<PublicKey>().map_err(|_| damaged())?),
        };
        let (label, document) = SecretDocument::from_pem(pem.trim()).map_err(|_| damaged())?;
        let info: EncryptedPrivateKeyInfo<'_> = document.decode_msg().map_err(|_| damaged())?;
        if label != LABEL {
            return Err(damaged());
        }
        if !is_affordable(&info.encryption_algorithm) {
            return Err(Mistake::new(
                "this key is encrypted in a way that is not read here, or would take too much memory or time",
                "encrypt it with scrypt or PBKDF2 of usual strength: `openssl pkcs8 -topk8 -scrypt`",
            ));
        }
        let plain = info.decrypt(passphrase).map_err(|_| {
            Mistake::new(
                "the passphrase is not this key's",
                "try again, and look at the keyboard's layout",
            )
        })?;
        let key = SigningKey::from_pkcs8_der(plain.as_bytes()).map_err(|_| {
            Mistake::new(
                "this is a key of another kind",
                "name the file that `bulkhead policy keygen` made; policies are signed with Ed25519",
            )
        })?;
        let key = Self::from_signing(key);
        if public.is_some_and(|public| public != key.public()) {
            return Err(damaged());
        }
        Ok(key)
    }
}

/// Returns whether the passphrase can be tried without taking a PC's memory or a day.
fn is_affordable(scheme: &EncryptionScheme<'_>) -> bool {
    let EncryptionScheme::Pbes2(parameters) = scheme else { return false };
    match &parameters.kdf {
        pbes2::Kdf::Scrypt(scrypt) => {
            let memory = u64::from(scrypt.block_size)
                .checked_mul(128)
                .and_then(|block| block.checked_mul(scrypt.cost_parameter));
            memory.is_some_and(|memory| memory <= MEMORY_MAX)
                && u64::from(scrypt.parallelization) <= WORK_MAX
        }
        pbes2::Kdf::Pbkdf2(pbkdf2) => pbkdf2.iteration_count <= ROUNDS_MAX,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Made by `openssl genpkey -algorithm ed25519 | openssl pkcs8 -topk8 -scrypt -passout pass:rain-over-ward`.
    const BY_OPENSSL: &str = include_str!("testdata/by-openssl.pem");

    fn key() -> SecretKey {
        SecretKey::from_random(&Zeroizing::new([7; 32]))
    }

    // Shows: K-2.2.1.
    #[test]
    fn a_key_under_a_passphrase_is_read_back_with_it_and_with_no_other() {
        let file = key().encrypted("four words of rain", &Zeroizing::new([3; 32])).unwrap();
        assert!(SecretKey::is_encrypted(&file));
        let digits = key().text().trim_start_matches("ed25519-secret:").trim().to_owned();
        assert!(!file.contains(&digits));
        let back = SecretKey::decrypt(&file, "four words of rain").unwrap();
        assert_eq!(back.public(), key().public());
        let wrong = SecretKey::decrypt(&file, "four words of snow").unwrap_err();
        assert!(wrong.message.contains("passphrase is not this key's"), "{wrong}");
        assert!(key().encrypted("short", &Zeroizing::new([3; 32])).is_err());
        // What is not encrypted is still read as it was.
        assert_eq!(SecretKey::parse(&key().text()).unwrap().public(), key().public());
        assert!(!SecretKey::is_encrypted(&key().text()));
    }

    #[test]
    fn a_key_that_openssl_encrypted_is_read() {
        let key = SecretKey::decrypt(BY_OPENSSL, "rain-over-ward").unwrap();
        assert_eq!(format!("{:?}", key).len(), "SecretKey of ed25519:".len() + 64);
    }

    #[test]
    fn a_key_file_that_asks_for_all_memory_is_refused_before_any_is_taken() {
        let info = |kdf: pbes2::Kdf<'static>| {
            EncryptionScheme::Pbes2(pbes2::Parameters {
                kdf,
                encryption: pbes2::EncryptionScheme::Aes256Cbc { iv: &[0; 16] },
            })
        };
        let scrypt = |log: u8, block, parallel| {
            let parameters = scrypt::Params::new(log, block, parallel, 32).unwrap();
            info(pbes2::ScryptParams::from_params_and_salt(parameters, &[0; 16]).unwrap().into())
        };
        assert!(is_affordable(&scrypt(14, 8, 5)));
        assert!(is_affordable(&scrypt(17, 8, 1)), "what others recommend");
        assert!(!is_affordable(&scrypt(24, 8, 1)));
        assert!(!is_affordable(&scrypt(14, 8, 500)));
    }

    #[test]
    fn a_damaged_key_file_is_refused() {
        let file = key().encrypted("four words of rain", &Zeroizing::new([3; 32])).unwrap();
        let pem = file.find("-----BEGIN").unwrap();
        // The public key, the frame, what is said of the encryption, and all of the 16-byte blocks of what is encrypted, 22 characters each.
        let places = [0, 8, pem - 2, pem + 3, pem + 40, pem + 60];
        let encrypted = file.find("\n-----END").unwrap() - 100;
        let last = file.len() - 3;
        for at in places.into_iter().chain((encrypted..last).step_by(11)) {
            let mut bytes = file.as_bytes().to_vec();
            let byte = bytes.get_mut(at).unwrap();
            *byte = match *byte {
                b'\n' => continue,
                b'A' => b'B',
                b'a' => b'b',
                b'0' => b'1',
                b'-' => b'_',
                _ => {
                    if at < pem {
                        b'0'
                    } else {
                        b'A'
                    }
                }
            };
            assert_ne!(bytes, file.as_bytes());
            let text = String::from_utf8(bytes).unwrap();
            let read = SecretKey::decrypt(&text, "four words of rain");
            assert!(read.is_err(), "at {at}");
        }
    }

    #[test]
    fn a_key_file_without_its_public_half_is_read_as_openssl_writes_it() {
        let file = key().encrypted("four words of rain", &Zeroizing::new([3; 32])).unwrap();
        let (_, pem) = file.split_once('\n').unwrap();
        let read = SecretKey::decrypt(pem, "four words of rain").unwrap();
        assert_eq!(read.public(), key().public());
    }
}
