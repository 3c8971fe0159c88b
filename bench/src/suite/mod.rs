//! Servers in turns on one boot.
//!
//! One measurement of one server says little on a machine that changes its mind: so each scenario is run against each
//! server in turns, N rounds, forwards and backwards by turns, each time against a fresh process. What is compared are
//! the runs of one round; the spread of the ratios says how far to trust their median.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{getpid, set_child_subreaper};

mod file;
mod process;
mod summary;
mod tell;
mod watch;

use crate::measure::round_trip;
use crate::report::Report;
use crate::report::output::{save, to_json};
use crate::{EXIT_FAULTS, EXIT_INVALID, Failure, verdict};
use file::{Plan, ScenarioPlan, ServerPlan};
use process::{Owned, Server, end_orphans, last_lines};
use summary::{Run, Suite};
use watch::{Waited, Watch};

/// Which suite, and where its outcome goes.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The servers and the scenarios, as TOML.
    file: PathBuf,
    /// Rounds, in place of the file's.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Repeat a round when its runs saw different states of the machine: its cores next to each other or apart.
    #[arg(long)]
    same_mode: bool,
    /// How often one round may be repeated for that.
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeats: usize,
    /// Keep each run's report and each server's log in this directory.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// Write everything to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the tables as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Why a suite ended early.
pub enum Halt {
    Interrupted,
    Failed(String),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs it; the exit code.
pub fn run(args: &Args) -> Result<u8, Failure> {
    let mut plan = Plan::load(&args.file).map_err(Failure::Usage)?;
    match args.rounds {
        Some(0) => return Err(Failure::Usage("rounds begin at 1".to_owned())),
        Some(rounds) => plan.rounds = rounds,
        None => {}
    }
    let scratch = Scratch::new(args.keep.as_deref())?;
    // What a server leaves behind becomes a child of the suite, so that it can be found.
    set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
    let conductor = Conductor {
        args,
        plan: &plan,
        watch: Watch::new()?,
        directory: &scratch.directory,
    };
    let played = conductor.play();
    let left = end_orphans()?;
    if left > 0 {
        eprintln!("ringway-bench: {left} processes were left and have been killed");
    }
    let suite = played.map_err(|halt| match halt {
        Halt::Interrupted => Failure::Environment("interrupted; all servers are ended".to_owned()),
        Halt::Failed(words) => Failure::Environment(words),
    })?;
    print!("{}", tell::text(&suite));
    if let Some(path) = &args.json {
        save(path, &(to_json(&suite)? + "\n"))?;
    }
    if let Some(path) = &args.markdown {
        save(path, &tell::markdown(&suite))?;
    }
    if let Some(path) = &args.html {
        save(path, &tell::html(&suite))?;
    }
    let worst = |code: u8| suite.runs.iter().any(|run| run.code == code);
    Ok(match (worst(EXIT_FAULTS), worst(EXIT_INVALID)) {
        (true, _) => EXIT_FAULTS,
        (false, true) => EXIT_INVALID,
        (false, false) => 0,
    })
}

/// Where reports and logs go; removed at the end when nobody asked to keep it.
struct Scratch {
    directory: PathBuf,
    keep: bool,
}

impl Scratch {
    fn new(keep: Option<&Path>) -> io::Result<Self> {
        let directory = match keep {
            Some(directory) => directory.to_owned(),
            None => {
                std::env::temp_dir().join(format!("ringway-bench-suite-{}", std::process::id()))
            }
        };
        fs::create_dir_all(&directory)?;
        Ok(Self {
            directory,
            keep: keep.is_some(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = fs::remove_dir_all(&self.directory)
        {
            eprintln!("ringway-bench: {}: {e}", self.directory.display());
        }
    }
}

struct Conductor<'a> {
    args: &'a Args,
    plan: &'a Plan,
    watch: Watch,
    directory: &'a Path,
}

impl Conductor<'_> {
    fn play(&self) -> Result<Suite, Halt> {
        let mut runs = Vec::new();
        for round in 1..=self.plan.rounds {
            for scenario in &self.plan.scenario {
                runs.extend(self.round(round, scenario)?);
            }
        }
        Ok(Suite::new(self.plan, self.args.same_mode, runs))
    }

    /// Each server once; again, when asked, while the machine changed its state in between.
    fn round(&self, round: usize, scenario: &ScenarioPlan) -> Result<Vec<Run>, Halt> {
        let mut repeats = 0;
        loop {
            let mut runs = Vec::new();
            let mut order: Vec<&ServerPlan> = self.plan.server.iter().collect();
            if round.is_multiple_of(2) {
                order.reverse();
            }
            for server in order {
                eprintln!(
                    "round {round}/{}: {}, {}",
                    self.plan.rounds, scenario.name, server.name
                );
                runs.push(self.measure(round, repeats, scenario, server)?);
            }
            let trips: Vec<f64> = runs
                .iter()
                .flat_map(|run| &run.round_trips)
                .copied()
                .collect();
            let same_mode = !round_trip::differ(&trips);
            runs.iter_mut().for_each(|run| run.same_mode = same_mode);
            if same_mode || !self.args.same_mode || repeats == self.args.repeats {
                return Ok(runs);
            }
            repeats += 1;
            eprintln!("round {round}: the machine changed its state; repeat {repeats}");
        }
    }

    fn measure(
        &self,
        round: usize,
        repeat: usize,
        scenario: &ScenarioPlan,
        plan: &ServerPlan,
    ) -> Result<Run, Halt> {
        self.watch.check()?;
        let stem = file_stem(&[&scenario.name, &plan.name]);
        let place = |end: &str| {
            self.directory
                .join(format!("{stem}-{round}-{repeat}.{end}"))
        };
        let mut server = Server::start(plan, &self.watch, place("server.log"))?;
        let pids: Vec<String> = server.pids()?.iter().map(u32::to_string).collect();
        let (json, log) = (place("json"), place("log"));
        let mut arguments = [&scenario.arguments[..], &plan.arguments].concat();
        arguments.extend(["--pid".to_owned(), pids.join(","), "--json".to_owned()]);
        let program = std::env::current_exe()?;
        let out = fs::File::create(&log)?;
        let mut bench = Owned::start(&program.to_string_lossy(), &arguments, |command| {
            command.arg(&json).stdout(out);
        })?;
        let Waited::Ended(status) = self.watch.wait(&mut bench.child, None)? else {
            unreachable!("without a limit only its end ends the wait");
        };
        let code = status.code().map_or(u8::MAX, |code| code as u8);
        let up = server.is_up()?;
        if !up || !matches!(code, 0 | EXIT_FAULTS | EXIT_INVALID) {
            return Err(Halt::Failed(format!(
                "{}, {}: {status}{}{}",
                scenario.name,
                plan.name,
                if up { "" } else { "; the server is gone" },
                last_lines(&log)
            )));
        }
        let remarks = server.stop(&self.watch)?;
        let report = Report::load(&json)?;
        debug_assert_eq!(code, verdict(report.verified, report.invalid.is_empty()));
        Ok(Run::new(
            round,
            &scenario.name,
            &plan.name,
            code,
            report,
            remarks,
        ))
    }
}

/// Names as part of a file's.
fn file_stem(names: &[&str]) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    names.join(" ").chars().map(plain).collect()
}
