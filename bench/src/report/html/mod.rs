//! Pages that need nothing but themselves: no script, no network.

mod plot;
pub mod run;

/// Light and dark, wide and narrow.
const STYLE: &str = include_str!("style.css");

/// A whole page; `title` is plain text, `body` is HTML.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// Text as it may stand in an element or between double quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(char),
        }
    }
    out
}

/// A table; all cells are plain text, the columns `numbers` names stand to the right.
pub fn table(head: &[&str], rows: &[Vec<String>], numbers: &[usize]) -> String {
    let class = |column: &usize| match numbers.contains(column) {
        true => " class=\"number\"",
        false => "",
    };
    let row = |cells: &mut dyn Iterator<Item = &str>, tag: &str| -> String {
        let cells = cells.enumerate();
        let cells = cells.map(|(i, cell)| format!("<{tag}{}>{}</{tag}>", class(&i), escape(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let head = row(&mut head.iter().copied(), "th");
    let body: String = rows
        .iter()
        .map(|cells| row(&mut cells.iter().map(String::as_str), "td"))
        .collect();
    format!(
        "<div class=\"wide\"><table>\n<thead>{head}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_cell_is_markup() {
        let text = table(&["a<b"], &[vec!["<script>\"'&".to_owned()]], &[0]);
        assert!(text.contains("<th class=\"number\">a&lt;b</th>"));
        assert!(text.contains("<td class=\"number\">&lt;script&gt;&quot;&#39;&amp;</td>"));
    }
}
