//! Servers in turns on one boot.
//!
//! One measurement of one server says little on a machine that changes its mind: so each scenario is run against each
//! server in turns, N rounds, forwards and backwards by turns, each time against a fresh process. What is compared are
//! the runs of one round; the spread of the ratios says how far to trust their median.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{getpid, set_child_subreaper};

mod file;
mod process;
mod summary;
mod tell;
mod watch;

use crate::measure::round_trip;
use crate::report::output::{save, to_json};
use crate::report::{Host, Mode, Place, Report};
use crate::{EXIT_ENVIRONMENT, EXIT_FAULTS, EXIT_INVALID, Failure, verdict};
use file::{Plan, ScenarioPlan, ServerPlan};
use process::{Owned, Server, end_orphans, last_lines};
use summary::{Run, Suite};
use watch::{Waited, Watch};

/// The longest a run may take.
const RUN_PATIENCE: Duration = Duration::from_secs(600);
/// A server that failed so often in succession is not tried again.
const GIVE_UP: u32 = 2;

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
    /// Keep each run's report, without its histograms, and each server's log in this directory; a run replaces the one
    /// of its round that lies there.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// Only this scenario, or this server and those it is compared with in a round; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// List a run that failed, and go on: a server that does not come up, or ends, ends the suite without.
    #[arg(long)]
    keep_going: bool,
    /// Words to keep in each report: a commit, a setting.
    #[arg(long)]
    label: Option<String>,
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
    restrict(&mut plan, &args.only)?;
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
    let any = |code: &u8| suite.runs.iter().any(|run| run.code == *code);
    let worst = [EXIT_FAULTS, EXIT_INVALID, EXIT_ENVIRONMENT];
    Ok(worst.into_iter().find(any).unwrap_or(0))
}

/// Leaves what was asked for: scenarios by their names, servers by theirs, and of both only what meets.
fn restrict(plan: &mut Plan, only: &[String]) -> Result<(), Failure> {
    let named = |name: &String| only.contains(name);
    let servers: Vec<String> = plan.server.iter().map(|s| s.name.clone()).collect();
    let scenarios = plan.scenario.iter().map(|s| &s.name);
    if let Some(unknown) = only
        .iter()
        .find(|name| !servers.contains(name) && scenarios.clone().all(|s| s != *name))
    {
        return Err(Failure::Usage(format!(
            "{unknown}: neither a scenario nor a server of the suite"
        )));
    }
    if plan.scenario.iter().any(|s| named(&s.name)) {
        plan.scenario.retain(|s| named(&s.name));
    }
    // Servers that are compared with each other are measured in one round.
    let partners = |name: &str| {
        let mut rounds = plan.scenario.iter().filter(|s| s.mode == Mode::Round);
        rounds.any(|s| s.is_for(name) && only.iter().any(|o| s.is_for(o)))
    };
    if servers.iter().any(named) {
        let kept: Vec<bool> = servers.iter().map(|s| named(s) || partners(s)).collect();
        let mut kept = kept.into_iter();
        plan.server.retain(|_| kept.next().unwrap_or_default());
    }
    let servers: Vec<&str> = plan.server.iter().map(|s| s.name.as_str()).collect();
    plan.scenario
        .retain(|scenario| servers.iter().any(|name| scenario.is_for(name)));
    Ok(())
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

impl<'a> Conductor<'a> {
    fn play(&self) -> Result<Suite, Halt> {
        let (mut runs, mut given_up, began) = (Vec::new(), GivenUp::default(), Instant::now());
        for round in 1..=self.plan.rounds {
            for scenario in &self.plan.scenario {
                if scenario.rounds.is_none_or(|most| round <= most) {
                    let minutes = began.elapsed().as_secs_f64() / 60.0;
                    let (rounds, name) = (self.plan.rounds, &scenario.name);
                    eprintln!("round {round}/{rounds}, after {minutes:.1} min: {name}");
                    runs.extend(self.round(round, scenario, &mut given_up)?);
                }
            }
        }
        Ok(Suite::new(self.plan, self.args.same_mode, runs))
    }

    /// Each server of the scenario once, in the order of the round. What has to see one state of the machine is
    /// measured together.
    fn round(
        &self,
        round: usize,
        scenario: &'a ScenarioPlan,
        given_up: &mut GivenUp<'a>,
    ) -> Result<Vec<Run>, Halt> {
        let servers = self.plan.server.iter();
        let mut order: Vec<&ServerPlan> = servers.filter(|s| scenario.is_for(&s.name)).collect();
        if round.is_multiple_of(2) {
            order.reverse();
        }
        if scenario.mode == Mode::Round {
            return self.together(round, scenario, &order, given_up);
        }
        let mut runs = Vec::new();
        for server in order {
            runs.extend(self.together(round, scenario, &[server], given_up)?);
        }
        Ok(runs)
    }

    /// Each of these servers once; again, when asked, while the machine changed its state in between.
    fn together(
        &self,
        round: usize,
        scenario: &'a ScenarioPlan,
        servers: &[&'a ServerPlan],
        given_up: &mut GivenUp<'a>,
    ) -> Result<Vec<Run>, Halt> {
        let mut repeat = 0;
        loop {
            let mut runs = Vec::new();
            for &server in servers {
                if given_up.has(&server.name) {
                    continue;
                }
                let place = Place {
                    scenario: scenario.name.clone(),
                    server: server.name.clone(),
                    round,
                    repeat,
                    mode: scenario.mode,
                    ran: true,
                };
                let run = match self.measure(place.clone(), scenario, server) {
                    Err(Halt::Failed(words)) if self.args.keep_going => {
                        eprintln!("failed: {words}");
                        self.failed(place, scenario, words)?
                    }
                    run => run?,
                };
                given_up.note(&server.name, run.code == EXIT_ENVIRONMENT);
                runs.push(run);
            }
            let trips: Vec<f64> = runs
                .iter()
                .flat_map(|run| &run.round_trips)
                .copied()
                .collect();
            let same_mode = scenario.mode == Mode::Any || !round_trip::differ(&trips);
            runs.iter_mut().for_each(|run| run.same_mode = same_mode);
            // What was lost is not repeated away.
            let fault = |run: &Run| matches!(run.code, EXIT_FAULTS | EXIT_ENVIRONMENT);
            let is_final = same_mode || repeat == self.args.repeats || runs.iter().any(fault);
            if is_final || !self.args.same_mode {
                return Ok(runs);
            }
            repeat += 1;
            eprintln!("round {round}: the machine changed its state; repeat {repeat}");
        }
    }

    fn file(&self, place: &Place, end: &str) -> PathBuf {
        let stem = file_stem(&[&place.scenario, &place.server]);
        self.directory.join(format!("{stem}-{}.{end}", place.round))
    }

    fn measure(
        &self,
        place: Place,
        scenario: &ScenarioPlan,
        plan: &ServerPlan,
    ) -> Result<Run, Halt> {
        self.watch.check()?;
        let mut server = Server::start(plan, &self.watch, self.file(&place, "server.log"))?;
        let pids: Vec<String> = server.pids()?.iter().map(u32::to_string).collect();
        let (json, log) = (self.file(&place, "json"), self.file(&place, "log"));
        let mut arguments = [&scenario.arguments[..], &plan.arguments].concat();
        if let Some(label) = &self.args.label {
            arguments.extend(["--label".to_owned(), label.clone()]);
        }
        arguments.extend(["--pid".to_owned(), pids.join(","), "--json".to_owned()]);
        let program = std::env::current_exe()?;
        let out = fs::File::create(&log)?;
        let mut bench = Owned::start(&program.to_string_lossy(), &arguments, |command| {
            command.arg(&json).stdout(out);
        })?;
        let waited = self.watch.wait(&mut bench.child, Some(RUN_PATIENCE))?;
        let (words, code) = match waited {
            Waited::Ended(status) => {
                let code = status.code().map_or(u8::MAX, |code| code as u8);
                (status.to_string(), code)
            }
            Waited::TimeOver => ("not over in ten minutes".to_owned(), u8::MAX),
        };
        let up = server.is_up()?;
        if !up || !matches!(code, 0 | EXIT_FAULTS | EXIT_INVALID) {
            return Err(Halt::Failed(format!(
                "{}, {}: {words}{}{}",
                scenario.name,
                plan.name,
                if up { "" } else { "; the server is gone" },
                last_lines(&log)
            )));
        }
        let remarks = server.stop(&self.watch)?;
        let report = Report::load(&json)?;
        debug_assert_eq!(code, verdict(report.verified, report.invalid.is_empty()));
        self.keep(place, code, report, remarks)
    }

    /// The report of a run that there was none of.
    fn failed(&self, place: Place, scenario: &ScenarioPlan, words: String) -> Result<Run, Halt> {
        let host = Host::read(String::new());
        let mut report = Report::new("", host, self.args.label.clone());
        report.scenario = scenario.arguments[0].clone().into();
        report.invalid.push(words);
        let place = Place {
            ran: false,
            ..place
        };
        self.keep(place, EXIT_ENVIRONMENT, report, Vec::new())
    }

    fn keep(
        &self,
        place: Place,
        code: u8,
        report: Report,
        remarks: Vec<String>,
    ) -> Result<Run, Halt> {
        let mut report = report.without_histograms();
        report.remarks.extend(remarks.iter().cloned());
        report.place = Some(place.clone());
        let text = serde_json::to_string(&report).map_err(io::Error::other)?;
        save(&self.file(&place, "json"), &(text + "\n"))?;
        Ok(Run::new(&place, code, report, remarks))
    }
}

/// How often servers have failed in succession.
#[derive(Default)]
struct GivenUp<'a>(BTreeMap<&'a str, u32>);

impl<'a> GivenUp<'a> {
    fn has(&self, server: &str) -> bool {
        self.0.get(server).is_some_and(|&times| times >= GIVE_UP)
    }

    fn note(&mut self, server: &'a str, failed: bool) {
        let times = self.0.entry(server).or_default();
        *times = if failed { *times + 1 } else { 0 };
        if *times == GIVE_UP {
            eprintln!("{server}: given up");
        }
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
