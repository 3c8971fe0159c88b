//! Where values come from: the file, over it the environment, over both the flags.
//!
//! Each source is read on its own, so an error can say which line, variable or flag is at fault; then the trees are merged
//! and read once more as a whole. Environment and flags travel as small TOML texts through the same reader as the file.

use super::error::{ConfigError, Origin};
use super::raw::Raw;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Names the file, when `--config` does not.
pub const FILE_VARIABLE: &str = "RINGWAY_CONFIG";
/// Every other variable that starts like this must be a key.
pub const PREFIX: &str = "RINGWAY_";
/// Read if it exists, when nothing names a file.
pub const DEFAULT_FILE: &str = "/etc/ringway/ringway.toml";

/// Keys that are settled but that this build does not have, by the start of their dotted form; `*` stands for any name.
const LATER: &[&str] = &[
    "admin",
    "nats.region",
    "nats.manage_streams",
    "client.tls",
    "internal.tls",
    "history",
    "channel.*.history_class",
];

/// The keys that hold lists.
const LISTS: [&str; 7] = [
    "cores",
    "proxy_protocol.networks",
    "client.allowed_origins",
    "client.trusted_proxies",
    "channel.namespaces",
    "limits.dry_run",
    "tls.certificates",
];

/// What a start of the program was given.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The file to read if it exists and no other is named: [`DEFAULT_FILE`].
    pub default_file: PathBuf,
    /// The environment; variables without [`PREFIX`] are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags that set keys.
    pub flags: Vec<Flag>,
}

impl Default for Inputs {
    fn default() -> Inputs {
        Inputs {
            file: None,
            default_file: DEFAULT_FILE.into(),
            environment: Vec::new(),
            flags: Vec::new(),
        }
    }
}

/// A flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As typed: `--shards`.
    pub name: &'static str,
    /// The key it sets, in dotted form.
    pub key: &'static str,
    /// To what.
    pub value: Value,
}

/// All sources in one.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The values.
    pub raw: Raw,
    /// Where each came from.
    pub origins: Origins,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Where each key was set, by its dotted form.
#[derive(Clone, Debug, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where `key` was set. A key left out of an element of a list comes from where the element is.
    pub fn of(&self, key: &str) -> Origin {
        let element = key.rfind(']').map(|end| &key[..=end]);
        let found = self.0.get(key).or_else(|| self.0.get(element?));
        found.cloned().unwrap_or(Origin::Default)
    }

    /// Records the keys of a later source. A list replaces the list before it, element by element origins included.
    fn add(&mut self, keys: Vec<(String, Origin)>) {
        for (key, _) in &keys {
            let elements = format!("{key}[");
            self.0.retain(|known, _| !known.starts_with(&elements));
        }
        self.0.extend(keys);
    }
}

/// Reads and merges every source.
///
/// # Errors
/// The first source, in the order file, environment (by name), flags, that cannot be read or has a key that does not
/// exist or is of the wrong kind.
pub fn read(inputs: &Inputs) -> Result<Merged, ConfigError> {
    let (mut table, mut origins) = (Table::new(), Origins::default());
    let file = file_of(inputs);
    if let Some(path) = &file {
        let text = text_of(path)?;
        let part = parse(&text, &|line| Origin::File {
            path: path.clone(),
            line,
        })?;
        origins.add(part.keys);
        merge(&mut table, part.table);
    }
    // By name, so that a table (a shorter name) comes before the keys in it.
    let mut variables: Vec<_> = inputs
        .environment
        .iter()
        .filter(|(name, _)| is_ours(name))
        .collect();
    variables.sort();
    for (name, value) in variables {
        let part = parse_variable(name, value)?;
        origins.add(part.keys);
        merge(&mut table, part.table);
    }
    for flag in &inputs.flags {
        let part = parse_value(flag.key, flag.value.clone(), &|_| Origin::Flag(flag.name))?;
        origins.add(part.keys);
        merge(&mut table, part.table);
    }
    let raw = Raw::deserialize_from(table)?;
    Ok(Merged { raw, origins, file })
}

impl Raw {
    /// Reads the merged tree. Its parts were read before, so what fails here is a combination, and has no single source.
    fn deserialize_from(table: Table) -> Result<Raw, ConfigError> {
        table
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Syntax {
                origin: Origin::Default,
                problem: plain_words(error.message()),
            })
    }
}

fn file_of(inputs: &Inputs) -> Option<PathBuf> {
    let named = || {
        let (_, value) = inputs
            .environment
            .iter()
            .find(|(name, _)| name == FILE_VARIABLE)?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    };
    let default = || {
        inputs
            .default_file
            .exists()
            .then(|| inputs.default_file.clone())
    };
    inputs.file.clone().or_else(named).or_else(default)
}

fn text_of(path: &PathBuf) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError::File {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    String::from_utf8(bytes).map_err(|_| ConfigError::File {
        path: path.clone(),
        reason: "it is not UTF-8 text".into(),
    })
}

fn is_ours(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) && name != FILE_VARIABLE
}

/// One source, read on its own.
struct Part {
    table: Table,
    keys: Vec<(String, Origin)>,
}

/// Reads one variable: as a string where the key takes one, else as JSON.
fn parse_variable(name: &OsString, value: &OsString) -> Result<Part, ConfigError> {
    let shown = name.to_string_lossy().into_owned();
    let origin = |_| Origin::Environment(shown.clone());
    let syntax = |problem: String| ConfigError::Syntax {
        origin: origin(0),
        problem,
    };
    let key = shown[PREFIX.len()..]
        .to_ascii_lowercase()
        .replace("__", ".");
    let value = value
        .to_str()
        .ok_or_else(|| syntax("its value is not UTF-8 text".into()))?;
    let as_string = match parse_value(&key, Value::String(value.to_owned()), &origin) {
        Err(ConfigError::UnknownKey { key, origin, hint }) => {
            return Err(ConfigError::UnknownKey {
                hint: hint_for_variable(&shown, hint),
                key,
                origin,
            });
        }
        Err(error) => error,
        part => return part,
    };
    match serde_json::from_str::<serde_json::Value>(value) {
        Ok(json) => {
            let json = value_of(json)
                .ok_or_else(|| syntax("null is no value: leave the variable out".into()))?;
            parse_value(&key, json, &origin)
        }
        Err(error) if value.trim_start().starts_with(['{', '[']) => Err(syntax(format!(
            "{key}: lists and tables are written as JSON, and this is not: {error}"
        ))),
        Err(_) => Err(as_string),
    }
}

/// Kubernetes puts `RINGWAY_PORT` and the like into every pod beside a Service called `ringway`.
fn hint_for_variable(name: &str, hint: String) -> String {
    let from_service = name.starts_with("RINGWAY_SERVICE_")
        || name == "RINGWAY_PORT"
        || name.starts_with("RINGWAY_PORT_");
    if from_service {
        return " (Kubernetes sets this for a Service called ringway: set enableServiceLinks: false in the pod)".into();
    }
    hint
}

fn value_of(json: serde_json::Value) -> Option<Value> {
    Some(match json {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(on) => Value::Boolean(on),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.as_f64()?),
        },
        serde_json::Value::String(text) => Value::String(text),
        serde_json::Value::Array(list) => {
            Value::Array(list.into_iter().map(value_of).collect::<Option<_>>()?)
        }
        serde_json::Value::Object(map) => Value::Table(
            map.into_iter()
                .map(|(key, value)| Some((key, value_of(value)?)))
                .collect::<Option<_>>()?,
        ),
    })
}

/// Reads one value at a dotted key.
fn parse_value(
    key: &str,
    value: Value,
    origin: &dyn Fn(usize) -> Origin,
) -> Result<Part, ConfigError> {
    let tree = key.rsplit('.').fold(value, |inner, name| {
        Value::Table(Table::from_iter([(name.to_owned(), inner)]))
    });
    let text = toml::to_string(&tree).map_err(|error| ConfigError::Key {
        key: key.to_owned(),
        origin: origin(0),
        problem: error.to_string().replace('\n', " "),
    })?;
    parse(&text, origin)
}

/// Reads a text against [`Raw`], and notes where each key stands.
fn parse(text: &str, origin: &dyn Fn(usize) -> Origin) -> Result<Part, ConfigError> {
    let at = |offset: usize| origin(text[..offset.min(text.len())].matches('\n').count() + 1);
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        origin: at(error.span().map_or(0, |span| span.start)),
        problem: format!("not TOML: {}", error.message().replace('\n', ", ")),
    };
    let mut entries = Vec::new();
    walk(
        DeTable::parse(text).map_err(syntax)?.get_ref(),
        "",
        &mut entries,
    );
    if let Err(error) = toml::from_str::<Raw>(text) {
        let offset = error.span().map_or(0, |span| span.start);
        return Err(refusal(
            error.message(),
            key_at(&entries, offset),
            at(offset),
        ));
    }
    // serde would take a list as a table's values in the order of its keys.
    if let Some(list) = entries
        .iter()
        .find(|entry| entry.is_list && !LISTS.contains(&entry.key.as_str()))
    {
        let problem = "got a list, want a table".to_owned();
        return Err(ConfigError::Key {
            key: list.key.clone(),
            origin: at(list.name.start),
            problem,
        });
    }
    let table = toml::from_str(text).map_err(syntax)?;
    let keys = entries
        .into_iter()
        .map(|entry| (entry.key, at(entry.name.start)))
        .collect();
    Ok(Part { table, keys })
}

/// A key and the bytes it stands at.
struct Entry {
    key: String,
    name: Range<usize>,
    value: Range<usize>,
    is_list: bool,
}

impl Entry {
    fn new(key: &str, name: Range<usize>, value: &Spanned<DeValue<'_>>) -> Entry {
        Entry {
            key: key.to_owned(),
            name,
            value: value.span(),
            is_list: value.get_ref().is_array(),
        }
    }
}

fn walk(table: &DeTable<'_>, prefix: &str, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        entries.push(Entry::new(&key, name.span(), value));
        walk_value(value.get_ref(), &key, entries);
    }
}

fn walk_value(value: &DeValue<'_>, key: &str, entries: &mut Vec<Entry>) {
    match value {
        DeValue::Table(table) => walk(table, key, entries),
        DeValue::Array(list) => {
            for (index, element) in list.iter().enumerate() {
                let key = format!("{key}[{index}]");
                entries.push(Entry::new(&key, element.span(), element));
                walk_value(element.get_ref(), &key, entries);
            }
        }
        _ => {}
    }
}

/// The key whose name or value is at `offset`: the smallest such, for tables hold their keys.
fn key_at(entries: &[Entry], offset: usize) -> String {
    let spans = |entry: &&Entry| {
        [&entry.name, &entry.value]
            .into_iter()
            .filter(|span| span.contains(&offset))
            .map(|span| span.len())
            .min()
    };
    let smallest = entries
        .iter()
        .filter(|entry| spans(entry).is_some())
        .min_by_key(spans);
    smallest.map_or(String::new(), |entry| entry.key.clone())
}

/// What serde said, as an error that names the key.
fn refusal(message: &str, key: String, origin: Origin) -> ConfigError {
    match message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'))
    {
        None => ConfigError::Key {
            key,
            origin,
            problem: plain_words(message),
        },
        Some(_) if is_later(&key) => ConfigError::Key {
            key,
            origin,
            problem: "this build does not have it yet: leave it out".into(),
        },
        Some((name, known)) => ConfigError::UnknownKey {
            key,
            origin,
            hint: hint(name, known),
        },
    }
}

fn is_later(key: &str) -> bool {
    let names: Vec<&str> = key
        .split('.')
        .map(|name| name.split('[').next().unwrap_or(name))
        .collect();
    LATER.iter().any(|later| {
        let mut names = names.iter();
        later.split('.').all(|want| {
            names
                .next()
                .is_some_and(|name| want == "*" || want == *name)
        })
    })
}

/// The known name nearest to the typed one, if any is near. `known` lists names in backticks.
fn hint(typed: &str, known: &str) -> String {
    let names = known.split('`').skip(1).step_by(2);
    let nearest = names.map(|name| (edits(typed, name), name)).min();
    match nearest {
        Some((edits, name)) if edits <= 2 || edits * 4 <= typed.len() => {
            format!(", did you mean {name}?")
        }
        _ => String::new(),
    }
}

/// Levenshtein distance of two short names.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// serde's words as ours, on one line. A string it quotes is taken out: it may be a secret in the wrong place.
pub(super) fn plain_words(message: &str) -> String {
    let message = message.replace('\n', ", ");
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    let Some((got, want)) = rest.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message;
    };
    let got = if got.starts_with("string ") {
        "a string"
    } else {
        got
    };
    let want = match want {
        "a sequence" => "a list (in the environment: JSON)",
        want if want.starts_with("struct ") => "a table (in the environment: JSON)",
        want => want,
    };
    format!("got {got}, want {want}")
}

fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
