//! Whether the TPM gives the key of a volume in the state that this PC was started in: its PCRs as they are, against what the volume's header says.
//!
//! A policy of PCRs alone is the SHA-256 of 32 zero bytes, the command's code, the selection of PCRs, and the SHA-256 of their values one behind the other
//! (TPM 2.0 Library, Part 3, TPM2_PolicyPCR). Other policies, with a PIN or with values that somebody signed, are not judged.

use images::digest::Digest;
use serde_json::Value;

/// TPM_CC_PolicyPCR, and TPM_ALG_SHA256.
const POLICY_PCR: u32 = 0x17f;
const SHA256: u16 = 0x000b;
/// PCRs that a PC's TPM has (PC Client Platform TPM Profile).
const PCRS: u8 = 24;

/// What the PCRs have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PcrPolicy {
    /// Numbers of the PCRs, in rising order.
    pcrs: Vec<u8>,
    /// The policy's digest, SHA-256, as hexadecimal digits.
    digest: String,
}

impl PcrPolicy {
    /// Reads the policy of a key that `systemd-cryptenroll` bound to PCRs alone.
    pub(super) fn of(token: &Value) -> Option<Self> {
        let others = ["tpm2-pin", "tpm2_pcrlock", "tpm2-pcrlock"];
        let is_set = |key: &&str| token.get(*key).and_then(Value::as_bool) == Some(true);
        let signed = ["tpm2_pubkey_pcrs", "tpm2-pubkey-pcrs"];
        let names = |key: &&str| {
            token.get(*key).and_then(Value::as_array).is_some_and(|pcrs| !pcrs.is_empty())
        };
        if others.iter().any(is_set) || signed.iter().any(names) {
            return None;
        }
        if token.get("tpm2-pcr-bank").and_then(Value::as_str) != Some("sha256") {
            return None;
        }
        let named = token.get("tpm2-pcrs").and_then(Value::as_array)?;
        let number = |pcr: &Value| u8::try_from(pcr.as_u64()?).ok().filter(|pcr| *pcr < PCRS);
        let mut pcrs: Vec<u8> = named.iter().map(number).collect::<Option<_>>()?;
        pcrs.sort_unstable();
        pcrs.dedup();
        let digest = token.get("tpm2-policy-hash").and_then(Value::as_str)?.to_ascii_lowercase();
        (!pcrs.is_empty()).then_some(Self { pcrs, digest })
    }

    /// Returns whether PCRs with these values meet it; `None` if one cannot be read.
    pub(super) fn is_met(&self, value: impl Fn(u8) -> Option<[u8; 32]>) -> Option<bool> {
        let values: Option<Vec<[u8; 32]>> = self.pcrs.iter().map(|pcr| value(*pcr)).collect();
        let mut selected = 0_u32;
        for pcr in &self.pcrs {
            selected |= 1_u32.checked_shl(u32::from(*pcr)).unwrap_or(0);
        }
        let [first, second, third, _] = selected.to_le_bytes();
        let mut policy = vec![0; 32];
        policy.extend(POLICY_PCR.to_be_bytes());
        // One bank, and three bytes that name PCRs of it.
        policy.extend(1_u32.to_be_bytes());
        policy.extend(SHA256.to_be_bytes());
        policy.extend([3, first, second, third]);
        policy.extend(Digest::of(&values?.concat()).bytes());
        Some(String::from(Digest::of(&policy)) == self.digest)
    }
}

/// Reads a PCR's value as the kernel writes it: 64 hexadecimal digits.
pub(super) fn value(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut value = [0; 32];
    for (byte, digits) in value.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// PCRs 0 and 7 of a TPM, and what it made of them (swtpm 0.7, tpm2-tools 5.4); the second is what systemd-cryptenroll of Debian 12 (252) and 13 (257) wrote for PCR 7 of
    /// the same; the newer one leaves `tpm2-pin` out.
    const ZERO: &str = "096FB1B86BBCC0CD3DCEC8288F6E458C2213CC32200EF793312478111E82853E";
    const SEVEN: &str = "7F85193790DE75E46B70BFEC3614098F47332A6993DABAC6E38AD35F47DF5DA4";
    const BOTH: &str = "e14fa42f6759bfedec8d0477904fdee51e7ca47ad31efa7c863a9d7e92c4b1c1";
    const LAST: &str = "49be4b8b1836b776d40f9e35074980b0d79705c03c02be6f34aa64aa15db08be";

    fn token(pcrs: &[u64], hash: &str) -> Value {
        json!({"type": "systemd-tpm2", "tpm2-pcrs": pcrs, "tpm2-pcr-bank": "sha256", "tpm2-primary-alg": "ecc", "tpm2-policy-hash": hash, "tpm2-pin": false})
    }

    #[test]
    fn a_policy_is_met_by_the_values_that_a_tpm_made_it_of_and_by_no_others() {
        let pcr = |pcr: u8| value(if pcr == 0 { ZERO } else { SEVEN });
        for (pcrs, hash) in [(&[7, 0][..], BOTH), (&[7], LAST)] {
            let mut newer = token(pcrs, hash);
            let policy = PcrPolicy::of(&newer).unwrap();
            newer.as_object_mut().unwrap().remove("tpm2-pin");
            assert_eq!(PcrPolicy::of(&newer).as_ref(), Some(&policy));
            assert_eq!(policy.is_met(pcr), Some(true), "{pcrs:?}");
            assert_eq!(policy.is_met(|_| value(ZERO)), Some(false), "{pcrs:?}");
            assert_eq!(policy.is_met(|_| None), None);
        }
    }

    #[test]
    fn other_policies_and_what_is_none_are_not_judged() {
        for (key, set) in [
            ("tpm2-pin", json!(true)),
            ("tpm2_pcrlock", json!(true)),
            ("tpm2_pubkey_pcrs", json!([11])),
            ("tpm2-pcr-bank", json!("sha1")),
            ("tpm2-pcrs", json!([24])),
            ("tpm2-pcrs", json!([])),
            ("tpm2-pcrs", json!("7")),
            ("tpm2-policy-hash", json!(7)),
        ] {
            let mut token = token(&[7], LAST);
            token[key] = set;
            assert_eq!(PcrPolicy::of(&token), None, "{key}");
        }
        for text in ["", "7F", &SEVEN[1..], &SEVEN.replace('7', "g"), &SEVEN.replace('7', "+")] {
            assert_eq!(value(text), None, "{text}");
        }
        assert_eq!(value(&format!("{SEVEN}\n")).unwrap()[..2], [0x7f, 0x85]);
    }
}
