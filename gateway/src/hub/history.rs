//! The records of one channel: the newest publications, by number and age.

use std::collections::VecDeque;

/// One publication as the home keeps it.
#[derive(Debug)]
pub struct Record {
    /// Its number.
    pub offset: u64,
    /// When it was published, milliseconds.
    pub at_millis: u64,
    /// Protobuf `Publication`, offset included.
    pub publication: Vec<u8>,
    /// Whether its data is known to be JSON.
    pub json: bool,
}

/// What a record costs besides its bytes.
const RECORD_OVERHEAD: u64 = std::mem::size_of::<Record>() as u64;

/// Records in order. `floor` is the newest offset no longer held, so that they cover `(floor, top]`.
#[derive(Debug, Default)]
pub struct History {
    records: VecDeque<Record>,
    bytes: u64,
    /// A record's buffer, to be used by the next one: a full history allocates nothing.
    spare: Vec<u8>,
}

impl History {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records held.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Keeps one more, and at most `size`.
    pub fn push(
        &mut self,
        offset: u64,
        at_millis: u64,
        publication: &[u8],
        json: bool,
        size: u32,
        floor: &mut u64,
    ) {
        while self.records.len() >= size as usize {
            self.drop_oldest(floor);
        }
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        buffer.reserve_exact(publication.len());
        buffer.extend_from_slice(publication);
        self.bytes += publication.len() as u64 + RECORD_OVERHEAD;
        self.records.push_back(Record {
            offset,
            at_millis,
            publication: buffer,
            json,
        });
    }

    /// Drops the oldest record; the floor rises to it.
    pub fn drop_oldest(&mut self, floor: &mut u64) -> bool {
        let Some(record) = self.records.pop_front() else {
            return false;
        };
        *floor = record.offset;
        self.bytes -= record.publication.len() as u64 + RECORD_OVERHEAD;
        if record.publication.capacity() <= 4096 {
            self.spare = record.publication;
        }
        true
    }

    /// Drops what was published before `oldest_millis`.
    pub fn expire(&mut self, oldest_millis: u64, floor: &mut u64) {
        while self
            .records
            .front()
            .is_some_and(|r| r.at_millis < oldest_millis)
        {
            self.drop_oldest(floor);
        }
    }

    /// Records after `offset`, oldest first.
    pub fn after(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Record> {
        let from = self.records.partition_point(|r| r.offset <= offset);
        self.records.range(from..)
    }

    /// Records before `offset`, oldest first.
    pub fn before(&self, offset: u64) -> impl DoubleEndedIterator<Item = &Record> {
        let to = self.records.partition_point(|r| r.offset < offset);
        self.records.range(..to)
    }

    /// The records a query asks for, in its order.
    pub fn select(&self, since: Option<u64>, reverse: bool, limit: usize) -> Vec<&Record> {
        match (since, reverse) {
            (None, false) => self.records.iter().take(limit).collect(),
            (None, true) => self.records.iter().rev().take(limit).collect(),
            (Some(offset), false) => self.after(offset).take(limit).collect(),
            (Some(offset), true) => self.before(offset).rev().take(limit).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(size: u32, offsets: impl IntoIterator<Item = u64>) -> (History, u64) {
        let (mut history, mut floor) = (History::default(), 0);
        for offset in offsets {
            history.push(offset, offset * 10, b"x", true, size, &mut floor);
        }
        (history, floor)
    }

    fn offsets(records: &[&Record]) -> Vec<u64> {
        records.iter().map(|r| r.offset).collect()
    }

    #[test]
    fn it_keeps_the_newest_and_the_floor_is_the_newest_it_dropped() {
        let (history, floor) = filled(3, [1, 2, 5, 9]);
        assert_eq!((history.len(), floor), (3, 1));
    }

    #[test]
    fn age_drops_from_the_front() {
        let (mut history, mut floor) = filled(10, 1..=5);
        history.expire(30, &mut floor);
        assert_eq!((history.len(), floor), (3, 2));
        history.expire(1000, &mut floor);
        assert_eq!((history.len(), history.bytes(), floor), (0, 0, 5));
    }

    #[test]
    fn since_is_exclusive_and_reverse_walks_down_from_it() {
        let (history, _) = filled(10, 1..=6);
        assert_eq!(offsets(&history.select(None, false, 2)), [1, 2]);
        assert_eq!(offsets(&history.select(None, true, 2)), [6, 5]);
        assert_eq!(offsets(&history.select(Some(3), false, 99)), [4, 5, 6]);
        assert_eq!(offsets(&history.select(Some(3), true, 99)), [2, 1]);
    }
}
