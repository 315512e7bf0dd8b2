//! Random texts that nobody can guess. Any thread.

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
    fn no_two_are_alike() {
        let (a, b) = (secret(), secret());
        assert!(a != b && a.len() == 64 && a.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
