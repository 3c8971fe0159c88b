//! Channel patterns of `/api/channels`: `*` any run of characters, `?` one, `[a-z]` and `[!a-z]` classes, `{a,b}`
//! alternatives, `\` takes the next character as it is.
//!
//! A pattern is compiled to a small program and run over all its threads at once, so matching costs pattern × name,
//! whatever the pattern.

/// Longest pattern, bytes.
const PATTERN_MAX: usize = 1024;

/// A pattern that can never match anything as written: unclosed class or brace, trailing `\`, too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad channel pattern")]
pub struct PatternError;

/// A compiled pattern.
#[derive(Debug)]
pub struct Glob {
    program: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    One(char),
    Any,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// Goes on at both.
    Fork(usize, usize),
    Jump(usize),
    Match,
}

impl Glob {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// [`PatternError`] when it is malformed.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.len() > PATTERN_MAX {
            return Err(PatternError);
        }
        let mut compiler = Compiler {
            chars: pattern.chars().peekable(),
            program: Vec::new(),
            open: Vec::new(),
        };
        compiler.run()?;
        Ok(Self {
            program: compiler.program,
        })
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut now = Threads::new(self.program.len());
        let mut next = Threads::new(self.program.len());
        now.add(&self.program, 0);
        for c in name.chars() {
            next.clear();
            for &at in &now.list {
                let taken = match &self.program[at] {
                    Step::One(want) => *want == c,
                    Step::Any => true,
                    Step::Class { negated, ranges } => {
                        ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
                    }
                    Step::Fork(..) | Step::Jump(_) | Step::Match => false,
                };
                if taken {
                    next.add(&self.program, at + 1);
                }
            }
            if next.list.is_empty() {
                return false;
            }
            std::mem::swap(&mut now, &mut next);
        }
        now.list
            .iter()
            .any(|&at| matches!(self.program[at], Step::Match))
    }
}

/// An open `{`: where its pending fork stands and which jumps lead behind its `}`.
struct Brace {
    fork: usize,
    exits: Vec<usize>,
}

struct Compiler<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    program: Vec<Step>,
    open: Vec<Brace>,
}

impl Compiler<'_> {
    fn run(&mut self) -> Result<(), PatternError> {
        while let Some(c) = self.chars.next() {
            match c {
                '*' => {
                    let at = self.program.len();
                    self.program.push(Step::Fork(at + 1, at + 3));
                    self.program.push(Step::Any);
                    self.program.push(Step::Jump(at));
                }
                '?' => self.program.push(Step::Any),
                '[' => self.class()?,
                '{' => {
                    self.open.push(Brace {
                        fork: self.program.len(),
                        exits: Vec::new(),
                    });
                    self.program.push(Step::Jump(0));
                }
                ',' if !self.open.is_empty() => self.alternative(),
                '}' if !self.open.is_empty() => self.close(),
                '\\' => {
                    let c = self.chars.next().ok_or(PatternError)?;
                    self.program.push(Step::One(c));
                }
                c => self.program.push(Step::One(c)),
            }
        }
        if !self.open.is_empty() {
            return Err(PatternError);
        }
        self.program.push(Step::Match);
        Ok(())
    }

    fn class(&mut self) -> Result<(), PatternError> {
        let negated = self.chars.next_if(|c| matches!(c, '!' | '^')).is_some();
        let mut ranges = Vec::new();
        loop {
            let low = match self.chars.next().ok_or(PatternError)? {
                ']' if !ranges.is_empty() => break,
                '\\' => self.chars.next().ok_or(PatternError)?,
                c => c,
            };
            let mut high = low;
            if self.chars.next_if_eq(&'-').is_some() {
                match self.chars.next().ok_or(PatternError)? {
                    // A `-` before the end stands for itself.
                    ']' => {
                        ranges.push((low, low));
                        ranges.push(('-', '-'));
                        break;
                    }
                    c => high = c,
                }
            }
            ranges.push((low, high));
        }
        self.program.push(Step::Class { negated, ranges });
        Ok(())
    }

    /// Ends one alternative: its exit is patched at the `}`, its fork now knows where the next one starts.
    fn alternative(&mut self) {
        let exit = self.program.len();
        self.program.push(Step::Jump(0));
        let next = self.program.len();
        self.program.push(Step::Jump(0));
        if let Some(brace) = self.open.last_mut() {
            brace.exits.push(exit);
            self.program[brace.fork] = Step::Fork(brace.fork + 1, next);
            brace.fork = next;
        }
    }

    fn close(&mut self) {
        if let Some(brace) = self.open.pop() {
            self.program[brace.fork] = Step::Jump(brace.fork + 1);
            let end = self.program.len();
            for exit in brace.exits {
                self.program[exit] = Step::Jump(end);
            }
        }
    }
}

/// The places a match may be at, each once.
struct Threads {
    list: Vec<usize>,
    seen: Vec<bool>,
    pending: Vec<usize>,
}

impl Threads {
    fn new(len: usize) -> Self {
        Self {
            list: Vec::with_capacity(len),
            seen: vec![false; len],
            pending: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.seen.fill(false);
    }

    fn add(&mut self, program: &[Step], at: usize) {
        self.pending.push(at);
        while let Some(at) = self.pending.pop() {
            if std::mem::replace(&mut self.seen[at], true) {
                continue;
            }
            match program[at] {
                Step::Fork(a, b) => self.pending.extend([b, a]),
                Step::Jump(to) => self.pending.push(to),
                Step::One(_) | Step::Any | Step::Class { .. } | Step::Match => self.list.push(at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn matches_the_whole_name() {
        for (pattern, yes, no) in [
            ("news", &["news"][..], &["new", "news:1", ""][..]),
            (
                "news:*",
                &["news:", "news:1", "news:a:b"],
                &["news", "old:1"],
            ),
            ("*", &["", "a", "ü:1"], &[]),
            ("a*b*c", &["abc", "a--b--c", "abcbc"], &["ab", "acb"]),
            ("room:?", &["room:1", "room:ß"], &["room:", "room:12"]),
            ("r[0-9a]", &["r1", "ra"], &["rb", "r"]),
            ("r[!0-9]", &["rx"], &["r1"]),
            ("r[a-]", &["ra", "r-"], &["rb"]),
            ("r[]]", &["r]"], &["r"]),
            ("{chat,news}:*", &["chat:1", "news:"], &["sport:1", "chat"]),
            ("{a,b{c,d}}e", &["ae", "bce", "bde"], &["be", "ace"]),
            ("{,x}y", &["y", "xy"], &["x"]),
            ("a,b}", &["a,b}"], &["a"]),
            (r"\*\{", &["*{"], &["a{"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} should match {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} should not match {name}");
            }
        }
    }

    #[test]
    fn refuses_malformed_patterns() {
        for pattern in [
            "[a",
            "[",
            "[!",
            "{a",
            "{a,{b}",
            "\\",
            &"x".repeat(PATTERN_MAX + 1),
        ] {
            assert_eq!(Glob::new(pattern).unwrap_err(), PatternError, "{pattern}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        assert!(!matches(
            &"a*".repeat(200),
            &"a".repeat(199).replace("aaa", "aab")
        ));
    }
}
