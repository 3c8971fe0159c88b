//! `ringway-bench`: a load harness for WebSocket servers, on raw io_uring.
//!
//! Exit codes: 0 verified and valid; 2 something was lost, duplicated, reordered or corrupted; 3 the run is invalid;
//! 1 the environment (server gone, sockets refused); 64 the command line.
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod client;
mod measure;
#[cfg(feature = "reference")]
mod reference;
mod report;
mod scenario;

use cli::{Cli, Failure};

const EXIT_ENVIRONMENT: u8 = 1;
const EXIT_FAULTS: u8 = 2;
const EXIT_INVALID: u8 = 3;
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match cli::run(cli.scenario) {
        Ok(report) => match (report.verified, report.invalid.is_empty()) {
            (true, true) => ExitCode::SUCCESS,
            (false, _) => ExitCode::from(EXIT_FAULTS),
            (true, false) => ExitCode::from(EXIT_INVALID),
        },
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
