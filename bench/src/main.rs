//! `ringway-bench`: a load harness for WebSocket servers, on raw io_uring.
//!
//! Exit codes: 0 verified and valid; 2 something was lost, duplicated, reordered or corrupted; 3 the run is invalid;
//! 4 `compare` found a regression; 1 the environment (server gone, sockets refused); 64 the command line.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod client;
mod compare;
mod measure;
#[cfg(feature = "reference")]
mod reference;
mod report;
mod scenario;
mod suite;
mod tables;

use cli::{Cli, Command, Failure};

const EXIT_ENVIRONMENT: u8 = 1;
const EXIT_FAULTS: u8 = 2;
const EXIT_INVALID: u8 = 3;
const EXIT_REGRESSION: u8 = 4;
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let ended = match cli.command {
        Command::Scenario(scenario) => {
            cli::run(*scenario).map(|report| verdict(report.verified, report.invalid.is_empty()))
        }
        Command::Compare(args) => compare::run(&args).map(|regressed| match regressed {
            true => EXIT_REGRESSION,
            false => 0,
        }),
        Command::Suite(args) => suite::run(&args),
        Command::Tables(args) => tables::run(&args).map(|()| 0),
        #[cfg(feature = "reference")]
        Command::Reference(args) => reference::run(&args)
            .map(|never| match never {})
            .map_err(Failure::from),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Usage(words)) => {
            eprintln!("ringway-bench: {words}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Environment(words)) => {
            eprintln!("ringway-bench: {words}");
            ExitCode::from(EXIT_ENVIRONMENT)
        }
    }
}

fn verdict(verified: bool, valid: bool) -> u8 {
    match (verified, valid) {
        (true, true) => 0,
        (false, _) => EXIT_FAULTS,
        (true, false) => EXIT_INVALID,
    }
}
