//! Names of a catalog that no path can hold, as text.
//!
//! Pure.

use modelfs::model::LeftOut;

/// The names on one line.
pub fn left_out_text(left_out: &LeftOut) -> String {
    let names = if left_out.count == 1 { "name" } else { "names" };
    let first = left_out.first.join("; ");
    let more = if left_out.count > left_out.first.len() { "; …" } else { "" };
    format!("{} {names} of the catalog that no path can hold: {first}{more}", left_out.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_out_names_are_reported_in_one_line_with_their_number() {
        let first = vec!["the group name \"..\" has a part '.' or '..'".to_owned()];
        let one = LeftOut { count: 1, first: first.clone() };
        let text = left_out_text(&one);
        assert_eq!(text, format!("1 name of the catalog that no path can hold: {}", first[0]));
        let many = left_out_text(&LeftOut { count: 9, first });
        assert!(many.starts_with("9 names ") && many.ends_with("; …"), "{many}");
    }
}
