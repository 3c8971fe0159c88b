//! Hunts with the simulation for longer than the tests do: `simulator --seed 7 --trace`, `simulator --from 1000 --seeds 5000`.

use clap::Parser;
use ringway::testing::world::simulate;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Runs seeds of the simulation: one node, many clients, virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// The first of several.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// Print what happens.
    #[arg(long)]
    trace: bool,
    /// Go on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
}

/// The seed that runs: a release build ends with a panic, and has to say whose it was.
static SEED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("seed {}:", SEED.load(Ordering::Relaxed));
        report(panic);
    }));
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.from..arguments.from + arguments.seeds,
    };
    let (count, began) = (seeds.end - seeds.start, Instant::now());
    let (mut failed, mut millis) = (0, 0);
    for seed in seeds {
        SEED.store(seed, Ordering::Relaxed);
        match simulate(seed, arguments.trace) {
            Ok(report) => {
                millis += report.millis;
                if count == 1 {
                    println!("{report:#?}");
                }
            }
            Err(what) => {
                failed += 1;
                println!("seed {seed}: {what}");
                if !arguments.keep_going {
                    break;
                }
            }
        }
    }
    println!(
        "{failed} of {count} seeds failed; {} virtual minutes in {:.1?}",
        millis / 60_000,
        began.elapsed()
    );
    ExitCode::from(u8::from(failed > 0))
}
