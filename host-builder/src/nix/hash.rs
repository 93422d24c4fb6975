//! Nix's hashes in every format that a version of Nix prints: storage keys must not depend on it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nixgate_core::distribution::Digest;
use serde_json::Value;

/// Digits of Nix's base 32.
const BASE32: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// A SHA-256 in hexadecimal digits, from `sha256:<hex or base 32>`, `sha256-<base 64>` (subresource
/// integrity) or `{"algorithm": "sha256", "hash": <any of these>}`.
pub(super) fn sha256_hex(value: &Value) -> Option<String> {
    let digits = match value {
        Value::String(text) => text
            .strip_prefix("sha256:")
            .or_else(|| text.strip_prefix("sha256-"))?,
        structure => {
            let field = |name| structure.get(name).and_then(Value::as_str);
            let hash = field("hash").filter(|_| field("algorithm") == Some("sha256"))?;
            hash.strip_prefix("sha256-").unwrap_or(hash)
        }
    };
    // The length tells the encoding.
    match digits.len() {
        64 => {
            let hex = digits.to_ascii_lowercase();
            hex.bytes().all(|c| c.is_ascii_hexdigit()).then_some(hex)
        }
        52 => Some(Digest::from_bytes(base32(digits)?).hex()),
        44 => Some(Digest::from_bytes(STANDARD.decode(digits).ok()?.try_into().ok()?).hex()),
        _ => None,
    }
}

/// Nix writes the last five bits first.
fn base32(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (index, digit) in digits.bytes().rev().enumerate() {
        let value = BASE32.iter().position(|&known| known == digit)? as u16;
        let (byte, shift) = (index * 5 / 8, index * 5 % 8);
        let [low, high] = (value << shift).to_le_bytes();
        bytes[byte] |= low;
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= high,
            // 52 digits are 260 bits, so the first has only one.
            None if high != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of empty input, as `nix hash` converts it.
    #[test]
    fn every_format_gives_the_same_hash() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let base64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        for written in [
            json!(format!("sha256:{empty}")),
            json!("sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"),
            json!(format!("sha256-{base64}")),
            json!({ "algorithm": "sha256", "format": "base64", "hash": base64 }),
            json!({ "algorithm": "sha256", "format": "base16", "hash": empty }),
        ] {
            assert_eq!(sha256_hex(&written).as_deref(), Some(empty), "{written}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for written in [
            json!("md5:d41d8cd98f00b204e9800998ecf8427e"),
            json!("sha256:"),
            json!(format!("sha256:{}", "g".repeat(64))),
            json!(format!("sha256:{}", "e".repeat(52))),
            json!(format!("sha256:{}", "z".repeat(52))),
            json!(format!("sha256-{}", "?".repeat(44))),
            json!({ "algorithm": "sha512", "hash": "0".repeat(64) }),
            json!(null),
        ] {
            assert_eq!(sha256_hex(&written), None, "{written}");
        }
    }
}
