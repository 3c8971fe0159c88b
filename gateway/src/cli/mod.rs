//! The command line: what was typed, to a command, to an exit code.
//!
//! The environment and the arguments are read in `main` and handed down; nothing below asks the system for them.

mod arguments;
mod probe;
mod token;

use crate::config::{self, Config, Inputs, Loaded, Machine};
use crate::lifecycle::notify::Notifier;
use crate::{logging, node};
use arguments::{Arguments, Command, ConfigFlags};
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// How the process ends. A bug ends it with 101, see [`crate::lifecycle::end_process_on_panic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or drained (also when connections were cut).
    Done,
    /// The environment does not let it run: a port in use, the kernel, limits.
    Environment,
    /// The configuration or the command line is wrong. Nothing was bound.
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Done => ExitCode::SUCCESS,
            Exit::Environment => ExitCode::from(1),
            Exit::Configuration => ExitCode::from(64),
        }
    }
}

/// The process's environment.
pub type Environment = Vec<(OsString, OsString)>;

/// Runs a command line (the program's name first) to its end.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> Exit {
    let command = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(usage) => return not_a_command(&usage),
    };
    match command {
        Command::Serve(flags) => serve(&flags, environment),
        Command::CheckConfig(flags) => check_config(&flags, environment),
        Command::DefaultConfig => print(config::default::DEFAULT_TOML),
        Command::Token(grant) => token::connection(&grant, environment),
        Command::SubToken(grant) => token::subscription(&grant, environment),
        Command::Probe => print(&probe::report(&Machine::observe())),
        Command::Version => print(concat!("ringway ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Help that was asked for, or a usage error.
fn not_a_command(usage: &clap::Error) -> Exit {
    if usage.use_stderr() {
        // A closed standard error leaves nobody to tell.
        let _ = usage.print();
        return Exit::Configuration;
    }
    print(&usage.render().to_string())
}

fn serve(flags: &ConfigFlags, environment: Environment) -> Exit {
    let notifier = Notifier::from_environment(&environment);
    let Ok(Loaded { config, file }) = load(flags, environment).map_err(refuse_configuration) else {
        return Exit::Configuration;
    };
    if let Err(error) = logging::init(&config.log) {
        return refuse(Exit::Environment, &error);
    }
    let notifier = notifier.unwrap_or_else(|error| {
        tracing::warn!("systemd is not notified: {error}");
        Notifier::silent()
    });
    announce(&config, file.as_deref());
    match node::run(config, &notifier) {
        Ok(drained) if drained.cut > 0 => {
            tracing::warn!(
                cut = drained.cut,
                "stopped; connections were cut before they could be closed"
            );
            Exit::Done
        }
        Ok(_) => {
            tracing::info!("stopped");
            Exit::Done
        }
        Err(error) => refuse(Exit::Environment, &error),
    }
}

fn announce(config: &Config, file: Option<&std::path::Path>) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.node_name,
        file = file.map_or("none".into(), |file| file.display().to_string()),
        shards = config.shards,
        "starting"
    );
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    if let Err(error) = config::machine::raise_open_files() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

fn check_config(flags: &ConfigFlags, environment: Environment) -> Exit {
    match load(flags, environment) {
        Ok(Loaded { config, file }) => {
            for warning in config.warnings() {
                say(&format!("warning: {warning}"));
            }
            match file {
                Some(file) => print(&format!("{}: the configuration is valid\n", file.display())),
                None => print(
                    "no file, so defaults, environment and flags: the configuration is valid\n",
                ),
            }
        }
        Err(error) => refuse_configuration(error),
    }
}

/// Reads and checks the configuration that flags and environment describe.
fn load(flags: &ConfigFlags, environment: Environment) -> Result<Loaded, config::ConfigError> {
    let inputs = Inputs {
        file: flags.config.clone(),
        environment,
        flags: flags.keys(),
        ..Inputs::default()
    };
    config::load(&inputs, flags.modes(), &Machine::observe())
}

fn refuse_configuration(error: config::ConfigError) -> Exit {
    refuse(Exit::Configuration, &error)
}

fn refuse(exit: Exit, error: &dyn std::fmt::Display) -> Exit {
    say(&format!("ringway: {error}"));
    exit
}

/// One line to standard error. A closed one leaves nobody to tell.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes to standard output. A reader that has enough (`| head`) is no fault.
fn print(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => refuse(
            Exit::Environment,
            &format_args!("cannot write to standard output: {error}"),
        ),
    }
}
