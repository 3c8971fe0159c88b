//! Log lines: where they go, how they look, and a limit for those that clients can cause.

use crate::config::{LogConfig, LogFormat};
use crate::ids::Now;
use std::io::IsTerminal;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Something else set it up before.
    #[error("logging is set up already")]
    Taken,
    /// Not a level; the configuration's check lets none through.
    #[error("log.level: {0:?} is no level")]
    Level(String),
}

/// Sends log lines to standard error from now on. Once a process.
///
/// # Errors
/// When it was called before.
pub fn init(config: &LogConfig) -> Result<(), LoggingError> {
    let level: LevelFilter = config
        .level
        .parse()
        .map_err(|_| LoggingError::Level(config.level.clone()))?;
    let terminal = std::io::stderr().is_terminal();
    // The NATS client tells of each event and each lost message, and of servers with their passwords.
    let quiet = level.min(LevelFilter::WARN);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("{level},async_nats={quiet}")))
        .with_writer(std::io::stderr);
    let set = if is_json(config.format, terminal) {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init()
    } else {
        lines.with_ansi(terminal).with_target(false).try_init()
    };
    set.map_err(|_| LoggingError::Taken)
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

/// Limits the lines of one place in the code, so that clients cannot fill the log. One a shard and place.
///
/// ```
/// # use ringway::{ids::Now, logging::Limited};
/// let mut malformed = Limited::new(10);
/// let now = Now { millis: 1, ..Now::default() };
/// if let Some(suppressed) = malformed.allow(now) {
///     tracing::warn!(suppressed, "a client sent what is not a frame");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Limited {
    per_second: u32,
    second_began: u64,
    lines: u32,
    suppressed: u64,
}

impl Limited {
    /// At most `per_second` lines in each second.
    pub const fn new(per_second: u32) -> Limited {
        Limited {
            per_second,
            second_began: 0,
            lines: 0,
            suppressed: 0,
        }
    }

    /// Whether a line may be written at `now`; then, how many were not since the last that was.
    pub fn allow(&mut self, now: Now) -> Option<u64> {
        if now.millis.saturating_sub(self.second_began) >= 1_000 {
            (self.second_began, self.lines) = (now.millis, 0);
        }
        if self.lines >= self.per_second {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now {
            millis,
            ..Now::default()
        }
    }

    #[test]
    fn lets_so_many_lines_a_second_through_and_counts_the_rest() {
        let mut limited = Limited::new(2);
        let answers = [5_000, 5_000, 5_000, 5_999].map(|millis| limited.allow(at(millis)));
        assert_eq!(answers, [Some(0), Some(0), None, None]);
        assert_eq!(limited.allow(at(6_000)), Some(2));
        assert_eq!(limited.allow(at(6_001)), Some(0));
        assert_eq!(limited.allow(at(6_002)), None);
        assert_eq!(limited.allow(at(90_000)), Some(1));
    }

    #[test]
    fn a_first_line_is_let_through_at_once() {
        assert_eq!(Limited::new(1).allow(at(1)), Some(0));
        assert_eq!(Limited::new(0).allow(at(1)), None);
    }

    #[test]
    fn json_unless_someone_watches() {
        assert!(is_json(LogFormat::Auto, false) && !is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Json, true) && !is_json(LogFormat::Text, false));
    }
}
