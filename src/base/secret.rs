//! Random secrets, for tokens. Any thread.

/// Length of a secret.
pub const SECRET_LEN: usize = 64;

/// 32 random bytes as hex digits.
pub fn secret() -> String {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_secrets_differ_and_are_hex_digits() {
        let (a, b) = (secret(), secret());
        assert!(a != b && a.len() == SECRET_LEN && a.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
