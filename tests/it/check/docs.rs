//! The page of the checks is made from their table.

use narthex::preflight::table::ALL;

use crate::cli::docs::between_markers;

#[test]
fn the_page_of_checks_is_made_from_their_table() {
    let rows = ALL.iter().map(|check| {
        let cells = [check.meaning, check.fix].map(|cell| cell.replace('|', "\\|"));
        format!("| `{}` | {} | {} |\n", check.name, cells[0], cells[1])
    });
    let rows: String = rows.collect();
    let text = format!("| Check | What it is about | What to do |\n|---|---|---|\n{rows}");
    between_markers("docs/check.md", "checks", &text);
}
