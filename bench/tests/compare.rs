//! `compare` by its exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway-bench"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Reports in a directory of their own.
struct Reports(PathBuf);

impl Reports {
    /// `a.json`, of a real run.
    fn new() -> Self {
        let directory =
            std::env::temp_dir().join(format!("ringway-compare-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let reports = Self(directory);
        let core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
        let core = core.to_string();
        let a = reports.path("a");
        let run = "limit --members 5 --runs 1 --run-ms 5 --plain-priority --cores";
        let mut arguments: Vec<&str> = run.split(' ').collect();
        arguments.extend([&core, "--json", &a]);
        let output = bench(&arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        reports
    }

    fn path(&self, name: &str) -> String {
        self.0
            .join(format!("{name}.json"))
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// `a.json` with a change, as another file.
    fn write(&self, name: &str, change: impl FnOnce(&mut Value)) -> String {
        let text = std::fs::read_to_string(self.path("a")).unwrap();
        let mut report: Value = serde_json::from_str(&text).unwrap();
        change(&mut report);
        std::fs::write(self.path(name), report.to_string()).unwrap();
        self.path(name)
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn ends_with_4_for_a_regression_and_64_for_what_cannot_be_compared() {
    let reports = Reports::new();
    let a = reports.path("a");
    let slow = reports.write("slow", |report| {
        let figure = &mut report["figures"][0];
        assert_eq!(figure["key"], "send_ns");
        figure["value"] = (figure["value"].as_f64().unwrap() * 2.0).into();
    });
    let code = |a: &str, b: &str, more: &[&str]| {
        let output = bench(&[&["compare", a, b], more].concat());
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(code(&a, &slow, &[]).0, 0, "nothing was forbidden");
    assert_eq!(code(&a, &a, &["--max-regression", "0"]).0, 0);
    assert_eq!(code(&a, &slow, &["--max-regression", "99"]).0, 4);
    assert_eq!(code(&a, &slow, &["--threshold", "send_ns=101"]).0, 0);
    let (exit, text) = code(&a, &slow, &["--threshold", "send_ns=99"]);
    assert_eq!(exit, 4);
    let line = text.lines().find(|line| line.contains("send_ns")).unwrap();
    assert!(line.ends_with("2.000  100.0 % worse  REGRESSION"), "{text}");
    assert_eq!(
        code(&slow, &a, &["--max-regression", "0"]).0,
        0,
        "it got better"
    );

    for wrong in [
        "send_ns",
        "send_ns=-1",
        "nonsense=5",
        "core_round_trip_ns=5",
    ] {
        assert_eq!(code(&a, &a, &["--threshold", wrong]).0, 64, "{wrong}");
    }
    assert_eq!(code(&a, &a, &["--threshold", "latency_p99_ms=5"]).0, 64);

    let other = reports.write("other", |report| report["scenario"] = "idle".into());
    assert_eq!(code(&a, &other, &[]).0, 64);
    let (exit, text) = code(&a, &other, &["--force"]);
    assert!(exit == 0 && text.contains("different scenarios"), "{text}");
    let newer = reports.write("newer", |report| report["schema"] = 9.into());
    assert_eq!(code(&a, &newer, &[]).0, 64);

    let lossy = reports.write("lossy", |report| {
        report["verified"] = false.into();
        report["host"]["kernel"] = "9.9".into();
    });
    let (exit, text) = code(&a, &lossy, &[]);
    assert!(
        exit == 0 && text.contains("not verified") && text.contains("kernels"),
        "{text}"
    );

    assert_eq!(code(&a, &reports.path("missing"), &[]).0, 1);
    std::fs::write(reports.path("broken"), "{}").unwrap();
    assert_eq!(code(&a, &reports.path("broken"), &[]).0, 1);
}
