//! Which of a run's connections are which thread's.

use std::ops::Range;

/// One thread's share: of `threads` threads the one with this number has connections `number`, `number + threads`, …, so
/// that it has its part of every range. What it counts through itself is a *place*: connection `place * threads + number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    number: usize,
    threads: usize,
}

impl Share {
    /// # Panics
    /// Unless `number` is below `threads`.
    pub fn new(number: usize, threads: usize) -> Self {
        assert!(number < threads, "threads count from 0");
        Self { number, threads }
    }

    /// The thread's number.
    pub fn number(self) -> usize {
        self.number
    }

    /// How many threads there are.
    pub fn threads(self) -> usize {
        self.threads
    }

    /// True when nobody else has a share.
    pub fn is_whole(self) -> bool {
        self.threads == 1
    }

    /// How many of the first `count` are its own.
    pub fn of(self, count: usize) -> usize {
        (count + self.threads - 1 - self.number) / self.threads
    }

    /// The places of those of `connections` that are its own.
    pub fn range(self, connections: Range<usize>) -> Range<usize> {
        self.of(connections.start)..self.of(connections.end)
    }

    /// A quantity without numbers, evenly divided.
    pub fn part(self, whole: f64) -> f64 {
        whole / self.threads as f64
    }

    /// The number of the thread that has `connection`.
    pub fn owner(self, connection: usize) -> usize {
        connection % self.threads
    }

    /// The place of `connection`, if it is its own.
    pub fn place(self, connection: usize) -> Option<usize> {
        (self.owner(connection) == self.number).then_some(connection / self.threads)
    }

    /// The connection at `place`.
    pub fn connection(self, place: usize) -> usize {
        place * self.threads + self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_is_one_threads_and_each_range_is_divided() {
        for threads in 1..5 {
            for count in 0..20 {
                let mut owners = vec![0; count];
                for number in 0..threads {
                    let share = Share::new(number, threads);
                    let half = share.range(count / 2..count);
                    assert_eq!(share.range(0..count).len(), share.of(count));
                    for place in 0..share.of(count) {
                        let connection = share.connection(place);
                        owners[connection] += 1;
                        assert_eq!(share.owner(connection), number);
                        assert_eq!(share.place(connection), Some(place));
                        assert_eq!(half.contains(&place), connection >= count / 2);
                    }
                }
                assert!(owners.iter().all(|&owners| owners == 1), "{owners:?}");
            }
        }
        assert_eq!(Share::new(0, 1).connection(7), 7);
        assert_eq!(Share::new(1, 2).place(6), None);
    }
}
