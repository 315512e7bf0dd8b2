//! Tables and bars of text.
//!
//! Invariant: columns line up, numbers to the right; no line ends in blanks. Pure functions.

use super::output::printable;

/// A column's title and the side it keeps to.
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn title(&self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) => title,
        }
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A table with titles. Cells are made printable.
pub fn table(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|c| c.title().to_owned()).collect()];
    lines.extend(rows.into_iter().map(|row| row.iter().map(|cell| printable(cell)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| lines.iter().filter_map(|l| l.get(i)).map(|c| width(c)).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for line in lines {
        let cells =
            line.iter().zip(columns).zip(&widths).map(|((cell, column), &w)| match column {
                Column::Left(_) => format!("{cell:<w$}"),
                Column::Right(_) => format!("{cell:>w$}"),
            });
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// Names and values, one to a line. Values are made printable; lines without a value are left out.
pub fn pairs(rows: &[(&str, Option<String>)]) -> String {
    let wide = rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let lines = rows.iter().filter_map(|(name, value)| {
        let value = printable(value.as_deref()?);
        Some(format!("{name:<wide$}  {value}\n"))
    });
    lines.collect()
}

/// `part` of `whole` in per cent, rounded down: `100%` only for all, `0%` only for nothing.
pub fn percent(part: u64, whole: u64) -> String {
    match hundredths(part, whole) {
        0 if part > 0 => "<1%".to_owned(),
        n => format!("{n}%"),
    }
}

fn hundredths(part: u64, whole: u64) -> u64 {
    match part >= whole {
        true => 100,
        false => (u128::from(part) * 100 / u128::from(whole)) as u64,
    }
}

/// A bar of `cells` signs.
pub fn bar(part: u64, whole: u64, cells: usize) -> String {
    let full = hundredths(part, whole) as usize * cells / 100;
    format!("[{}{}]", "#".repeat(full), "-".repeat(cells - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_are_aligned() {
        let columns = [Column::Left("NAME"), Column::Right("SIZE"), Column::Left("BY")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&columns, vec![row(["a", "1.0 GiB", ""]), row(["模b\tc", "2 B", "x"])]);
        assert_eq!(text, "NAME      SIZE  BY\na      1.0 GiB\n模b\\tc      2 B  x\n");
    }

    #[test]
    fn key_value_output_is_aligned_and_omits_missing_values() {
        let text = pairs(&[("a", Some("1".into())), ("long", Some("2\n".into())), ("no", None)]);
        assert_eq!(text, "a     1\nlong  2\\n\n");
    }

    #[test]
    fn percentages_of_0_and_100_are_exact() {
        assert_eq!(percent(0, 10), "0%");
        assert_eq!(percent(2 << 20, 50 << 30), "<1%");
        assert_eq!(percent(1, 100), "1%");
        assert_eq!(percent((1 << 40) - 1, 1 << 40), "99%");
        assert_eq!(percent(10, 10), "100%");
        assert_eq!(percent(0, 0), "100%");
        assert_eq!(percent(u64::MAX / 2, u64::MAX), "49%");
        assert_eq!(bar(1, 2, 4), "[##--]");
        assert_eq!(bar(9, 3, 2), "[##]");
    }
}
