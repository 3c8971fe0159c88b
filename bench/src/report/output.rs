//! Where a report goes beside standard output.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Report, csv, hdr, html};

/// The files a run is written to.
#[derive(Args, Clone, Debug, Default)]
pub struct Outputs {
    /// Write everything to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write latency by percentile as HdrHistogram's tools plot it.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write the latency of each second in HdrHistogram's log format.
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write the seconds of the run, one a line.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Outputs {
    /// Writes what was asked for.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, report: &Report) -> io::Result<()> {
        if let Some(path) = &self.json {
            save(path, &(to_json(report)? + "\n"))?;
        }
        if let Some(path) = &self.hgrm {
            save(path, &hdr::percentiles(report)?)?;
        }
        if let Some(path) = &self.hlog {
            save(path, &hdr::log(report)?)?;
        }
        if let Some(path) = &self.csv {
            save(path, &csv::seconds(report))?;
        }
        if let Some(path) = &self.html {
            save(path, &html::run::page(report)?)?;
        }
        Ok(())
    }
}

/// As it is kept in files.
pub fn to_json(value: &impl serde::Serialize) -> io::Result<String> {
    serde_json::to_string_pretty(value).map_err(io::Error::other)
}

/// Writes a whole file; the error names it.
pub fn save(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}
