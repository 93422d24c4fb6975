//! Tables of the documentation that are written from the code, by tests: they compare, and with
//! `make reference` they write.
//!
//! ```text
//!   <!-- table: filter -->
//!
//!   | key | … |              from the types that are parsed
//!
//!   <!-- end -->
//! ```

#[cfg(test)]
pub(crate) mod keys;

/// A row of a table, in Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(String);

impl Row {
    /// A row with these cells.
    pub fn new<const N: usize>(cells: [String; N]) -> Self {
        let cells = cells.map(|cell| match cell.as_str() {
            "" => " ".to_owned(),
            cell => format!(" {} ", cell.replace('|', "\\|")),
        });
        Self(format!("|{}|\n", cells.join("|")))
    }
}

/// A table with this head.
pub fn table<const N: usize>(head: [&str; N], rows: &[Row]) -> String {
    let Row(head) = Row::new(head.map(str::to_owned));
    let line = format!("|{}\n", " --- |".repeat(N));
    let rows = rows.iter().map(|Row(row)| row.as_str());
    [head.as_str(), line.as_str()]
        .into_iter()
        .chain(rows)
        .collect()
}

/// A page with this table in the place for it, which the page has once.
///
/// # Panics
/// When the page has no such place.
pub fn with_table(page: &str, name: &str, table: &str) -> String {
    let place = format!("<!-- table: {name} -->\n");
    let parts = page
        .split_once(&place)
        .and_then(|(before, rest)| Some((before, rest.split_once("<!-- end -->")?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("no place for the table {name}"));
    format!("{before}{place}\n{table}\n<!-- end -->{after}")
}
