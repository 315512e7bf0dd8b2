//! The reference of settings says what the program does.

use std::path::Path;

use modelfs::config::{Config, KEYS, POLICY_KEYS, SOURCE_KEYS};

fn reference() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    std::fs::read_to_string(file).expect("the reference exists")
}

/// The rows of the table below this heading, without its two first lines.
fn rows(text: &str, heading: &str) -> Vec<String> {
    let section = text.split_once(&format!("\n## {heading}\n")).expect(heading).1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with('|'));
    rows.skip(2).map(str::to_owned).collect()
}

/// The first cell of each row, without its quotes.
fn names(rows: &[String]) -> Vec<&str> {
    rows.iter().map(|row| row.split('`').nth(1).unwrap_or_default()).collect()
}

#[test]
fn the_reference_lists_every_setting_with_its_default_flag_and_variable() {
    let defaults = Config::default().entries();
    let expected: Vec<String> = KEYS
        .iter()
        .zip(defaults)
        .map(|(key, entry)| {
            let default = entry.value.map_or("–".to_owned(), |value| format!("`{value}`"));
            let flag = match (key.flag(), key.name) {
                (Some(flag), _) => format!("`{flag}`"),
                (None, "mountpoint") => "`MOUNTPOINT`".to_owned(),
                (None, _) => "`-v`, `-q`".to_owned(),
            };
            let (name, variable, about) = (key.name, key.variable(), key.about);
            format!("| `{name}` | {default} | {flag} | `{variable}` | {about} |")
        })
        .collect();
    assert_eq!(
        rows(&reference(), "Settings"),
        expected,
        "the table must be:\n{}",
        expected.join("\n")
    );
}

#[test]
fn the_reference_lists_every_key_of_a_source_and_of_the_policy() {
    let text = reference();
    assert_eq!(names(&rows(&text, "Sources")), SOURCE_KEYS);
    assert_eq!(names(&rows(&text, "Policy")), POLICY_KEYS);
}
