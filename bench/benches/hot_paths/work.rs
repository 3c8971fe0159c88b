//! What a bench is.

use std::hint::black_box;

/// Its name, and how to get ready.
pub struct Bench(pub &'static str, pub fn() -> Box<dyn Work>);

/// One hot path with the same input each time: no clock, no random number, no hash key of its own.
pub trait Work {
    /// Operations in one [`Work::run`].
    fn operations(&self) -> u32;

    /// Puts the input back where `run` changes it. Neither timed nor counted.
    fn prepare(&mut self) {}

    /// What is timed and counted.
    fn run(&mut self);

    /// Panics unless the last `run` did what it should.
    fn check(&mut self);
}

/// Runs it once, answers checked.
pub fn warm_up(work: &mut dyn Work) {
    // Twice: the second time finds what the first one left.
    for _ in 0..2 {
        work.prepare();
        work.run();
        work.check();
    }
}

const CALLS: u32 = 64;

struct Calls<O, C> {
    operation: O,
    check: C,
}

/// An operation that needs nothing put back: called many times in a run. `check` is given what it returns.
pub fn calls<T: 'static>(
    operation: impl FnMut() -> T + 'static,
    check: impl Fn(T) + 'static,
) -> Box<dyn Work> {
    Box::new(Calls { operation, check })
}

impl<T, O: FnMut() -> T, C: Fn(T)> Work for Calls<O, C> {
    fn operations(&self) -> u32 {
        CALLS
    }

    fn run(&mut self) {
        for _ in 0..CALLS {
            black_box((self.operation)());
        }
    }

    fn check(&mut self) {
        (self.check)((self.operation)());
    }
}
