//! The configuration that `default-config` prints: every key, what it means, its unit and its default.

/// Commented TOML. A line that begins with `#` and no space after it is a setting with its default; the rest explains.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

#[cfg(test)]
mod tests {
    use super::DEFAULT_TOML;
    use crate::config::raw::Raw;
    use std::collections::BTreeSet;
    use toml::{Table, Value};

    /// The text with every setting set.
    fn uncommented() -> String {
        let lines = DEFAULT_TOML.lines();
        let set = lines.map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with([' ', '#']))
                .unwrap_or(line)
        });
        set.collect::<Vec<_>>().join("\n")
    }

    fn leaves(table: &Table, prefix: &str, keys: &mut BTreeSet<String>) {
        for (name, value) in table {
            match value {
                Value::Table(inner) => leaves(inner, &format!("{prefix}{name}."), keys),
                _ => {
                    keys.insert(format!("{prefix}{name}"));
                }
            }
        }
    }

    #[test]
    fn as_printed_it_sets_nothing() {
        assert_eq!(toml::from_str::<Raw>(DEFAULT_TOML).unwrap(), Raw::default());
        let mut keys = BTreeSet::new();
        leaves(&DEFAULT_TOML.parse().unwrap(), "", &mut keys);
        assert_eq!(keys, BTreeSet::new());
    }

    #[test]
    fn its_settings_are_the_defaults() {
        assert_eq!(
            toml::from_str::<Raw>(&uncommented()).unwrap(),
            Raw::default()
        );
    }

    #[test]
    fn it_has_every_key_and_no_other() {
        let (mut printed, mut known) = (BTreeSet::new(), BTreeSet::new());
        leaves(&uncommented().parse().unwrap(), "", &mut printed);
        leaves(&Table::try_from(Raw::default()).unwrap(), "", &mut known);
        assert_eq!(printed, known);
    }

    #[test]
    fn the_reference_has_every_key() {
        let reference = include_str!("../../../docs/CONFIGURATION.md");
        let mut known = BTreeSet::new();
        leaves(&Table::try_from(Raw::default()).unwrap(), "", &mut known);
        for key in known {
            let key = key
                .strip_prefix("channel.without_namespace.")
                .unwrap_or(&key);
            let key = key
                .strip_prefix("client.subscription_token.")
                .unwrap_or(key);
            assert!(
                reference.contains(&format!("`{key}`")),
                "docs/CONFIGURATION.md lacks {key}"
            );
        }
    }
}
