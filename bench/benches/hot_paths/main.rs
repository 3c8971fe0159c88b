//! What do the gateway's hot paths cost, each by itself in this process: in nanoseconds, and in instructions?
//!
//! Without an option each is timed. `--instructions` runs each once under callgrind and holds the counts against the
//! baseline beside this file; `--renew` makes the counts the baseline. A count depends on the compiler, on valgrind and on
//! the C library, so the baseline names those; it does not depend on the load or the clock of the machine.

mod baseline;
mod callgrind;
mod clock;
mod codec;
mod compression;
mod mask;
mod room;
mod shard;
mod work;

use baseline::{Baseline, Toolchain};
use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use work::Bench;

// As the binary has it. Its instructions count, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The same exit code as `ringway-bench compare`.
const REGRESSED: u8 = 4;

const BENCHES: &[Bench] = &[
    Bench("mask/16", || mask::payload(16)),
    Bench("mask/100", || mask::payload(100)),
    Bench("mask/4096", || mask::payload(4096)),
    Bench("frame/receive", mask::received_frames),
    Bench("frame/write", codec::frame),
    Bench("frame/walk", codec::walk),
    Bench("json/command-connect", || codec::connect(codec::JSON)),
    Bench("json/command-subscribe", || codec::subscribe(codec::JSON)),
    Bench("json/command-publish", || codec::publish(codec::JSON)),
    Bench("json/reply-connect", || codec::connected(codec::JSON)),
    Bench("json/reply-subscribe", || codec::subscribed(codec::JSON)),
    Bench("json/reply-publish", || codec::published(codec::JSON)),
    Bench("json/publication", || codec::publication(codec::JSON)),
    Bench("protobuf/command-connect", || {
        codec::connect(codec::PROTOBUF)
    }),
    Bench("protobuf/command-subscribe", || {
        codec::subscribe(codec::PROTOBUF)
    }),
    Bench("protobuf/command-publish", || {
        codec::publish(codec::PROTOBUF)
    }),
    Bench("protobuf/reply-connect", || {
        codec::connected(codec::PROTOBUF)
    }),
    Bench("protobuf/reply-subscribe", || {
        codec::subscribed(codec::PROTOBUF)
    }),
    Bench("protobuf/reply-publish", || {
        codec::published(codec::PROTOBUF)
    }),
    Bench("protobuf/publication", || {
        codec::publication(codec::PROTOBUF)
    }),
    Bench("append", room::append),
    Bench("sweep", room::sweep),
    Bench("publish/alone", || shard::publish(1, 1, 64)),
    Bench("publish/delivery", || shard::publish(1000, 1, 1)),
    Bench("publish/delivery-16", || shard::publish(1000, 16, 1)),
    Bench("subscribe/join-leave", shard::join_and_leave),
    Bench("subscribe/come-and-go", shard::come_and_go),
];

#[derive(Parser)]
#[command(name = "hot_paths")]
struct Arguments {
    /// Only what has this in its name
    filter: Option<String>,
    /// Count instructions and hold them against the baseline: exit 4 when one has risen by over 10 %
    #[arg(long)]
    instructions: bool,
    /// Count instructions and make them the baseline
    #[arg(long, conflicts_with = "instructions")]
    renew: bool,
    /// What compression saves and costs on the samples, once for a room and for each connection; only samples that have the
    /// filter in their name
    #[arg(long, conflicts_with_all = ["instructions", "renew"])]
    compression: bool,
    /// Run one bench as callgrind is to see it
    #[arg(long, hide = true, value_name = "NAME")]
    counted: Option<String>,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.counted {
        Some(name) => callgrind::run_counted(find(name)).map(|()| ExitCode::SUCCESS),
        None if arguments.compression => {
            compression::tell(arguments.filter.as_deref().unwrap_or_default());
            Ok(ExitCode::SUCCESS)
        }
        None => run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("hot_paths: {error}");
        ExitCode::FAILURE
    })
}

fn find(name: &str) -> &'static Bench {
    let found = BENCHES.iter().find(|bench| bench.0 == name);
    found.expect("a name of the list above")
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let chosen = BENCHES.iter().filter(|bench| bench.0.contains(filter));
    let chosen: Vec<&Bench> = chosen.collect();
    if chosen.is_empty() {
        return Err(format!("nothing has {filter:?} in its name"));
    }
    if !arguments.instructions && !arguments.renew {
        clock::time(&chosen);
        return Ok(ExitCode::SUCCESS);
    }
    let toolchain = Toolchain::observe()?;
    let is_whole = chosen.len() == BENCHES.len();
    let kept = Baseline::read()?;
    let counts: BTreeMap<String, f64> = callgrind::count(&chosen)?;
    if arguments.renew {
        print!("{}", kept.compare(&toolchain, &counts, is_whole));
        kept.renewed(toolchain, counts, is_whole)?.write()?;
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = kept.compare(&toolchain, &counts, is_whole);
    print!("{verdict}{}", verdict.advice());
    Ok(if verdict.has_failed() {
        ExitCode::from(REGRESSED)
    } else {
        ExitCode::SUCCESS
    })
}
