//! Tables for people: columns without borders, cut to the terminal by wrapping. Holds no data of its own.

use comfy_table::{CellAlignment, ContentArrangement, Table};

/// Rows below a heading, two spaces between columns, at most `width` wide; ends with a newline.
pub(crate) fn table(width: usize, heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.set_header(heading.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    let last = heading.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_cell_alignment(CellAlignment::Left);
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let rows = [vec!["a".to_owned(), "long value".to_owned()], vec!["bbb".to_owned(), String::new()]];
        assert_eq!(table(80, &["one", "two"], &rows), "ONE  TWO\na    long value\nbbb\n");
    }

    #[test]
    fn wide_cells_wrap_on_narrow_terminals() {
        let rows = [vec!["name".to_owned(), "many words that do not fit into forty columns".to_owned()]];
        let text = table(40, &["one", "two"], &rows);
        assert!(text.lines().count() > 2 && text.lines().all(|l| l.len() <= 40), "{text}");
    }
}
