//! One line a second on standard error, in place when that is a terminal.

use std::io::{self, IsTerminal as _, Write};

/// A line that is written over, or a line after another.
pub struct Progress {
    out: Box<dyn Write + Send>,
    in_place: bool,
}

impl Progress {
    /// On standard error.
    pub fn to_standard_error() -> Self {
        let stderr = io::stderr();
        Self {
            in_place: stderr.is_terminal(),
            out: Box::new(stderr),
        }
    }

    /// Shows `line`. A standard error that is closed does not end a run.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        let _ = match self.in_place {
            true => write!(self.out, "\r\x1b[K{line}").and_then(|()| self.out.flush()),
            false => writeln!(self.out, "{line}"),
        };
    }

    /// Leaves the last line standing.
    pub fn end(&mut self) {
        if self.in_place {
            let _ = writeln!(self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    struct Pipe(Sender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(in_place: bool) -> String {
        let (writer, reader) = channel();
        let mut progress = Progress {
            out: Box::new(Pipe(writer)),
            in_place,
        };
        progress.show(|| "one".to_owned());
        progress.show(|| "two".to_owned());
        progress.end();
        drop(progress);
        String::from_utf8(reader.iter().flatten().collect()).unwrap()
    }

    #[test]
    fn a_terminal_sees_one_line_and_a_file_all() {
        assert_eq!(shown(true), "\r\x1b[Kone\r\x1b[Ktwo\n");
        assert_eq!(shown(false), "one\ntwo\n");
    }
}
