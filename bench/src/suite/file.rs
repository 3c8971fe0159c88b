//! The file a suite is described in.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use crate::report::Mode;

/// Servers, and what each of them is measured with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Turns of all servers.
    #[serde(default = "five")]
    pub rounds: usize,
    /// The first is what the others are measured by.
    pub server: Vec<ServerPlan>,
    pub scenario: Vec<ScenarioPlan>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerPlan {
    pub name: String,
    /// Program and arguments; it must stay in the foreground.
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// It is ready when this TCP port takes a connection, ADDRESS:PORT …
    pub ready: SocketAddr,
    /// … for which it has so long.
    #[serde(default = "ten")]
    pub ready_seconds: u32,
    /// How long it has after SIGTERM.
    #[serde(default = "thirty")]
    pub stop_seconds: u32,
    /// What this server adds to each scenario's arguments: `--target` at least.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioPlan {
    pub name: String,
    /// Arguments of `ringway-bench`, the scenario first; `--pid` and the server's own come after.
    pub arguments: Vec<String>,
    /// The servers it is for, by name; all of them without.
    #[serde(default)]
    pub servers: Vec<String>,
    /// What has to be of one state of the machine, when that is asked for.
    #[serde(default)]
    pub mode: Mode,
    /// Fewer rounds than the suite's.
    pub rounds: Option<usize>,
}

impl ScenarioPlan {
    /// True when `server` takes part.
    pub fn is_for(&self, server: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|name| name == server)
    }
}

fn five() -> usize {
    5
}

fn ten() -> u32 {
    10
}

fn thirty() -> u32 {
    30
}

impl Plan {
    /// Reads and checks it.
    pub fn load(path: &Path) -> Result<Self, String> {
        let name = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = fs::read_to_string(path).map_err(|e| name(&e))?;
        Self::parse(&text).map_err(|e| name(&e))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        let demand = |holds: bool, words: &str| match holds {
            true => Ok(()),
            false => Err(words.to_owned()),
        };
        let distinct = |mut names: Vec<&str>| {
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            names.len() == count
        };
        demand(plan.rounds > 0, "rounds begin at 1")?;
        demand(
            !plan.server.is_empty() && !plan.scenario.is_empty(),
            "there must be a server and a scenario",
        )?;
        demand(
            distinct(plan.server.iter().map(|s| s.name.as_str()).collect())
                && distinct(plan.scenario.iter().map(|s| s.name.as_str()).collect()),
            "two of one name",
        )?;
        let known = |name: &String| plan.server.iter().any(|server| server.name == *name);
        demand(
            plan.scenario.iter().flat_map(|s| &s.servers).all(known),
            "a scenario for a server that is not there",
        )?;
        demand(
            plan.server.iter().all(|s| !s.command.is_empty()),
            "a server without a command",
        )?;
        let measures = |scenario: &ScenarioPlan| {
            let first = scenario.arguments.first().map_or("", String::as_str);
            !matches!(first, "" | "limit" | "compare" | "suite" | "tables")
                && !first.starts_with('-')
        };
        demand(
            plan.scenario.iter().all(measures),
            "a scenario's first argument names one that measures a server",
        )?;
        let own = ["--json", "--pid", "--label"];
        let arguments = plan.server.iter().flat_map(|s| &s.arguments);
        let mut arguments = arguments.chain(plan.scenario.iter().flat_map(|s| &s.arguments));
        demand(
            arguments.all(|argument| !own.contains(&argument.as_str())),
            "--json, --label and --pid are the suite's own",
        )?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [[server]]
        name = "a"
        command = ["serve"]
        ready = "127.0.0.1:1"
        [[scenario]]
        name = "s"
        arguments = ["idle"]
    "#;

    #[test]
    fn has_defaults_and_says_what_is_wrong() {
        let plan = Plan::parse(GOOD).unwrap();
        assert_eq!((plan.rounds, plan.server[0].ready_seconds), (5, 10));
        assert!(plan.scenario[0].is_for("a"));
        let some = GOOD.replace("name = \"s\"", "name = \"s\"\nservers = [\"a\"]");
        let some = Plan::parse(&some).unwrap();
        assert!(some.scenario[0].is_for("a") && !some.scenario[0].is_for("b"));
        for (wrong, right, words) in [
            ("[\"idle\"]", "[\"limit\"]", "first argument"),
            ("[\"idle\"]", "[]", "first argument"),
            ("[\"idle\"]", "[\"idle\", \"--json\"]", "own"),
            ("[\"serve\"]", "[]", "command"),
            ("127.0.0.1:1", "nowhere", "address"),
            ("[[server]]", "rounds = 0\n[[server]]", "rounds"),
            ("name = \"a\"", "name = \"a\"\nnaem = \"b\"", "naem"),
            (
                "name = \"s\"",
                "name = \"s\"\nservers = [\"b\"]",
                "not there",
            ),
            ("name = \"s\"", "name = \"s\"\nmode = \"fast\"", "fast"),
        ] {
            let error = Plan::parse(&GOOD.replace(wrong, right)).unwrap_err();
            assert!(error.contains(words), "{right}: {error}");
        }
        let twice = GOOD.replace(
            "[[scenario]]",
            "[[scenario]]\nname = \"s\"\narguments = [\"idle\"]\n[[scenario]]",
        );
        assert!(Plan::parse(&twice).unwrap_err().contains("one name"));
    }
}
