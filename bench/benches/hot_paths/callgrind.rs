//! Counting: this program starts itself under callgrind, once for each bench, and only [`under_callgrind`] counts.
//!
//! A child gets an empty environment, because its size moves the stack, and with it how the C library copies. What callgrind
//! wrote stays in `target/tmp/hot_paths/`, for `callgrind_annotate`.

use super::work::{Bench, Work, warm_up};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions an operation, by name.
pub fn count(benches: &[&Bench]) -> Result<BTreeMap<String, f64>, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hot_paths");
    std::fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let count = |bench: &&Bench| Ok((bench.0.to_owned(), count_one(bench, &directory)?));
    benches.iter().map(count).collect()
}

fn count_one(bench: &Bench, directory: &Path) -> Result<f64, String> {
    let out = directory.join(format!("{}.callgrind", bench.0.replace('/', "-")));
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(find_valgrind()?)
        .args(["--tool=callgrind", "--quiet", "--error-exitcode=99"])
        .args(["--collect-atstart=no", "--toggle-collect=*under_callgrind*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["--counted", bench.0])
        .env_clear()
        // Options may lie in `.valgrindrc` wherever it is started.
        .current_dir(directory)
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{} under valgrind: {stderr}", bench.0));
    }
    let profile = std::fs::read_to_string(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let total = total(&profile).ok_or_else(|| format!("{}: no total", out.display()))?;
    let operations = String::from_utf8_lossy(&output.stdout);
    let operations: f64 = operations.trim().parse().map_err(|_| "no operations")?;
    Ok(((total as f64 / operations) * 100.0).round() / 100.0)
}

fn find_valgrind() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("valgrind"))
        .find(|file| file.is_file())
        .ok_or_else(|| "needs valgrind: apt-get install valgrind".into())
}

/// The instructions of a profile; `None` when it holds none, for then nothing was counted.
fn total(profile: &str) -> Option<u64> {
    let value = |key| profile.lines().find_map(|line| line.strip_prefix(key));
    let is_instructions = value("events:")?.trim() == "Ir";
    let total = value("totals:")?.trim().parse().ok()?;
    (is_instructions && total > 0).then_some(total)
}

/// What the child does: all but the counted run comes before or after what counts.
pub fn run_counted(bench: &Bench) -> Result<(), String> {
    let mut work = bench.1();
    warm_up(&mut *work);
    work.prepare();
    under_callgrind(&mut *work);
    work.check();
    println!("{}", work.operations());
    Ok(())
}

/// The collection is toggled by this name.
#[inline(never)]
fn under_callgrind(work: &mut dyn Work) {
    work.run();
    // Not a jump at the end, or callgrind would see this function left before the work begins.
    black_box(work.operations());
}
