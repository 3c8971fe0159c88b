//! Tables into a document, between their markers.

/// The document with each table renewed; all else is as it was, byte for byte.
///
/// # Errors
/// When a table's markers are missing, stand twice or in the wrong order.
pub fn splice(document: &str, tables: &[(&str, String)]) -> Result<String, String> {
    let mut out = document.to_owned();
    for (name, text) in tables {
        let begin = place(&out, &format!("<!-- table {name} -->"))?;
        let end = place(&out, &format!("<!-- end of table {name} -->"))?;
        if end.start < begin.end {
            return Err(format!("table {name} ends before it begins"));
        }
        out.replace_range(begin.end..end.start, &format!("\n{}\n", text.trim_end()));
    }
    Ok(out)
}

/// Where the marker stands.
fn place(document: &str, marker: &str) -> Result<std::ops::Range<usize>, String> {
    let mut places = document.match_indices(marker);
    match (places.next(), places.next()) {
        (Some((at, _)), None) => Ok(at..at + marker.len()),
        (None, _) => Err(format!("there is no {marker}")),
        (Some(_), Some(_)) => Err(format!("{marker} stands twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# Head\r\nbefore  \n<!-- table a -->\nold\nlines\n<!-- end of table a -->\nbetween\t\n\
                            <!-- table b --><!-- end of table b -->\nafter";

    fn tables(names: &[&'static str]) -> Vec<(&'static str, String)> {
        names.iter().map(|&n| (n, format!("| {n} |\n"))).collect()
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let once = splice(DOCUMENT, &tables(&["a", "b"])).unwrap();
        assert_eq!(
            once,
            "# Head\r\nbefore  \n<!-- table a -->\n| a |\n<!-- end of table a -->\nbetween\t\n\
             <!-- table b -->\n| b |\n<!-- end of table b -->\nafter"
        );
        assert_eq!(splice(&once, &tables(&["a", "b"])).unwrap(), once);
    }

    #[test]
    fn markers_that_are_not_as_they_should_be_are_refused() {
        assert!(
            splice(DOCUMENT, &tables(&["c"]))
                .unwrap_err()
                .contains("no <!-- table c")
        );
        let twice = format!("{DOCUMENT}<!-- table a -->");
        assert!(
            splice(&twice, &tables(&["a"]))
                .unwrap_err()
                .contains("twice")
        );
        let open = DOCUMENT.replace("<!-- end of table b -->", "");
        assert!(
            splice(&open, &tables(&["b"]))
                .unwrap_err()
                .contains("no <!-- end")
        );
        let wrong = "<!-- end of table a --><!-- table a -->";
        assert!(
            splice(wrong, &tables(&["a"]))
                .unwrap_err()
                .contains("before")
        );
    }
}
