//! Pings without timers: a clock hand over the slots, and a second hand behind it that looks for the pongs.
//!
//! The interval is cut into at most [`STEPS_MAX`] steps of no less than 50 ms. Slots belong to steps by their number alone,
//! [`GROUP`] neighbours to one step, the next to the next: so a slot's phase does not depend on how many others there are,
//! growing and shrinking move nothing, and a shard with few connections wakes for few steps. When the hand passes a slot it
//! says [`Beat::Ping`], young or not: an early first ping harms nobody, a skipped one lets the client's own watchdog fire.
//!
//! # Invariants
//! * Every slot that stays below `slots` is named for a ping at least every interval + 2 s, as long as
//!   [`Heartbeat::advance`] is called no later than 1 s after [`Heartbeat::next_deadline`].
//! * A call names at most [`budget`] slots for each hand, and then the deadline stays in the past. One thing comes before
//!   the budget: after a call the ping hand is at most 1 s late. More than a lap is never made up for.
//! * [`Beat::Pong`] comes no earlier than the timeout after the slot's last ping, also when that ping was late. When we were
//!   late ourselves the pong hand rests that much longer, for the pongs that lie unread in our own sockets. It names
//!   candidates only: a ping may have waited in a spill, so the connection's own bits decide whether its pong is overdue.
//!   A slot that was pinged again meanwhile is asked in its next lap.

use std::cmp::{max, min};

/// What the hands ask of a slot, whether a connection is open there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Ping the connection.
    Ping(u32),
    /// The last ping was the timeout ago or more: if it left and no pong came, close the connection.
    Pong(u32),
}

/// The most steps in an interval. An interval of 25 s has 500, of 50 ms each.
pub const STEPS_MAX: u64 = 512;

/// The shortest step in milliseconds: the hands move at most 20 times a second.
const STEP_LEAST_MS: u64 = 50;

/// Neighbouring slots in one step. Neighbours share memory, and few connections share few wakes.
pub const GROUP: u32 = 16;

/// The ping hand is no later than this after a call, whatever the budget.
const LAG_MOST_MS: u64 = 1000;

/// A call that comes later than this after its deadline was late; below, it is the coarseness of ticks.
const LATE_MS: u64 = 250;

/// Slots that one hand names in one call.
pub const fn budget(slots: u32) -> u32 {
    128 + slots / 512
}

/// The two hands. Sans-I/O: the clock is an argument.
#[derive(Debug)]
pub struct Heartbeat {
    interval_ms: u64,
    pong_timeout_ms: u64,
    /// Steps in an interval.
    steps: u64,
    ping: Hand,
    /// At most a lap behind the ping hand, never before it.
    pong: Hand,
    /// When the ping hand was through with a step, for its last lap: the pong hand measures from here.
    passed_ms: Box<[u64]>,
    /// The pong hand rests until then.
    rest_ms: u64,
    /// When the next call is due, as known after the last one.
    promised_ms: u64,
    /// Whether the hands stand anywhere yet. They do not while there are no slots.
    running: bool,
}

impl Heartbeat {
    /// Pings every `interval_ms` (0: never); pongs are looked for `pong_timeout_ms` later (0: never; more than the interval
    /// is taken as the interval).
    pub fn new(interval_ms: u64, pong_timeout_ms: u64) -> Self {
        let steps = (interval_ms / STEP_LEAST_MS).clamp(1, STEPS_MAX);
        Self {
            interval_ms,
            pong_timeout_ms: min(pong_timeout_ms, interval_ms),
            steps,
            ping: Hand::default(),
            pong: Hand::default(),
            passed_ms: vec![0; steps as usize].into_boxed_slice(),
            rest_ms: 0,
            promised_ms: 0,
            running: false,
        }
    }

    /// Moves the hands to `now_ms` and names the slots they pass. `slots` is one more than the largest slot in use, or 0
    /// when no connection is open. Handle receives first: a pong that has arrived should count.
    pub fn advance(&mut self, now_ms: u64, slots: u32, mut name: impl FnMut(Beat)) {
        if self.interval_ms == 0 || slots == 0 {
            self.running = false;
            return;
        }
        let now_step = self.step_at(now_ms);
        // Steps before this one are passed whatever the budget.
        let mut overdue = self.step_at(now_ms.saturating_sub(LAG_MOST_MS));
        if !self.running {
            // Nobody was there, so nobody is owed a ping.
            self.running = true;
            self.promised_ms = now_ms;
            self.ping = Hand::at(now_step + 1);
            self.pong = self.ping;
        } else if self.ping.step + self.steps <= now_step {
            // One lap makes up for all that were missed. Pongs are not asked for after such a pause of our own.
            self.ping = Hand::at(now_step + 1 - self.steps);
            self.pong = self.ping;
            overdue = now_step + 1;
        }
        let late_ms = now_ms.saturating_sub(self.promised_ms);
        if late_ms > LATE_MS {
            self.rest_ms = now_ms + min(late_ms, self.pong_timeout_ms);
        }
        // In this order, so that a timeout as long as the interval is asked about before the next ping.
        self.advance_pong(now_ms, slots, &mut name);
        self.advance_ping(now_ms, overdue, slots, &mut name);
        // The next pings have overtaken what was left: it is asked about in the next lap.
        let oldest = (self.ping.step + u64::from(self.ping.place > 0)).saturating_sub(self.steps);
        if self.pong.step < oldest {
            self.pong = Hand::at(oldest);
        }
        self.promised_ms = max(now_ms, self.deadline_ms(slots));
    }

    /// When [`advance`](Self::advance) has something to do again, on its clock; in the past while the hands have not caught
    /// up. `None`: never, as things are.
    pub fn next_deadline(&self, slots: u32) -> Option<u64> {
        if self.interval_ms == 0 || slots == 0 {
            return None;
        }
        // Not running: advance is to put the hands somewhere, now.
        Some(if self.running {
            self.deadline_ms(slots)
        } else {
            0
        })
    }

    /// Whether a ping of this slot that leaves now leaves in time, given that it has not left before.
    pub fn pinged_just_now(&self, slot: u32, now_ms: u64) -> bool {
        let phase = u64::from(slot / GROUP) % self.steps;
        // The hand is still in the slot's step, or was through with it a moment ago.
        let is_under_hand = self.ping.place > 0 && self.ping.step % self.steps == phase;
        is_under_hand || now_ms <= self.passed_ms[phase as usize] + LATE_MS
    }

    fn advance_ping(&mut self, now_ms: u64, overdue: u64, slots: u32, name: &mut impl FnMut(Beat)) {
        let mut left = budget(slots);
        while self.starts_ms(self.ping.step) <= now_ms {
            let step = self.ping.step;
            let mut unlimited = u32::MAX;
            let left = if step < overdue {
                &mut unlimited
            } else {
                &mut left
            };
            if !self
                .ping
                .pass(self.steps, slots, left, |slot| name(Beat::Ping(slot)))
            {
                return;
            }
            let remembered = self.remembered(step);
            self.passed_ms[remembered] = now_ms;
        }
    }

    fn advance_pong(&mut self, now_ms: u64, slots: u32, name: &mut impl FnMut(Beat)) {
        if self.pong_timeout_ms == 0 || now_ms < self.rest_ms {
            return;
        }
        let mut left = budget(slots);
        while self.pong.step < self.ping.step && self.pong_due_ms(self.pong.step) <= now_ms {
            if !self
                .pong
                .pass(self.steps, slots, &mut left, |slot| name(Beat::Pong(slot)))
            {
                return;
            }
        }
    }

    fn deadline_ms(&self, slots: u32) -> u64 {
        let ping_ms = self.starts_ms(self.next_used(self.ping.step, slots));
        if self.pong_timeout_ms == 0 {
            return ping_ms;
        }
        let pong_ms = self.pong_due_ms(self.next_used(self.pong.step, slots));
        min(ping_ms, max(pong_ms, self.rest_ms))
    }

    /// The first step from `step` on that has slots.
    fn next_used(&self, step: u64, slots: u32) -> u64 {
        let phase = step % self.steps;
        if phase * u64::from(GROUP) < u64::from(slots) {
            step
        } else {
            step + self.steps - phase
        }
    }

    /// The step that `now_ms` is in: the last with `starts_ms(step) <= now_ms`.
    fn step_at(&self, now_ms: u64) -> u64 {
        now_ms * self.steps / self.interval_ms
    }

    fn starts_ms(&self, step: u64) -> u64 {
        (step * self.interval_ms).div_ceil(self.steps)
    }

    /// When pongs to the pings of a step may be asked for: at the start of a step, so that the hands share their wakes. For
    /// a step that is still to come, the earliest it can be.
    fn pong_due_ms(&self, step: u64) -> u64 {
        let passed = step < self.ping.step;
        let pinged_ms = if passed {
            self.passed_ms[self.remembered(step)]
        } else {
            self.starts_ms(step)
        };
        let due_ms = pinged_ms + self.pong_timeout_ms;
        let step = self.step_at(due_ms);
        if self.starts_ms(step) == due_ms {
            due_ms
        } else {
            self.starts_ms(step + 1)
        }
    }

    fn remembered(&self, step: u64) -> usize {
        (step % self.passed_ms.len() as u64) as usize
    }
}

/// Where a hand stands: before the `place`-th slot of a step. Steps are counted over all laps, from time zero.
#[derive(Clone, Copy, Debug, Default)]
struct Hand {
    step: u64,
    place: u32,
}

impl Hand {
    fn at(step: u64) -> Self {
        Self { step, place: 0 }
    }

    /// Names the slots of the step as far as `left` allows; true when it was passed and the hand stands at the next.
    fn pass(&mut self, steps: u64, slots: u32, left: &mut u32, mut name: impl FnMut(u32)) -> bool {
        loop {
            let group = self.step % steps + u64::from(self.place / GROUP) * steps;
            let slot = group * u64::from(GROUP) + u64::from(self.place % GROUP);
            if slot >= u64::from(slots) {
                // Slots rise with the place, so the rest of the step is beyond the table too.
                *self = Self::at(self.step + 1);
                return true;
            }
            if *left == 0 {
                return false;
            }
            *left -= 1;
            self.place += 1;
            name(slot as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::collections::HashMap;

    const INTERVAL: u64 = 25_000;
    const TIMEOUT: u64 = 8_000;

    fn beats(heart: &mut Heartbeat, now_ms: u64, slots: u32) -> Vec<Beat> {
        let mut beats = Vec::new();
        heart.advance(now_ms, slots, |beat| beats.push(beat));
        beats
    }

    /// Runs from deadline to deadline and returns each beat with its time, and how many calls that took.
    fn run(heart: &mut Heartbeat, from_ms: u64, to_ms: u64, slots: u32) -> (Vec<(u64, Beat)>, u32) {
        let (mut said, mut calls, mut now_ms) = (Vec::new(), 0, from_ms);
        while now_ms <= to_ms {
            said.extend(
                beats(heart, now_ms, slots)
                    .into_iter()
                    .map(|beat| (now_ms, beat)),
            );
            calls += 1;
            now_ms = max(now_ms, heart.next_deadline(slots).expect("there are slots"));
        }
        (said, calls)
    }

    #[test]
    fn every_slot_is_pinged_once_an_interval_and_its_pong_looked_for_after_the_timeout() {
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        let (said, _) = run(&mut heart, 1_234, 1_234 + 3 * INTERVAL, 20_000);
        let (mut pings, mut pongs) = (vec![Vec::new(); 20_000], vec![Vec::new(); 20_000]);
        for (at, beat) in said {
            match beat {
                Beat::Ping(slot) => pings[slot as usize].push(at),
                Beat::Pong(slot) => pongs[slot as usize].push(at),
            }
        }
        for (pings, pongs) in pings.iter().zip(&pongs) {
            assert_eq!(pings.len(), 3);
            assert!(pings.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL));
            assert!(pongs.len() >= 2);
            assert!(
                pings
                    .iter()
                    .zip(pongs)
                    .all(|(ping, pong)| pong - ping == TIMEOUT)
            );
        }
    }

    #[test]
    fn a_ping_that_leaves_a_quarter_of_a_second_after_the_hand_is_late() {
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        let slots = 20_000;
        let mut pinged = HashMap::new();
        let mut now_ms = 1_234;
        while now_ms < 1_234 + 2 * INTERVAL {
            for beat in beats(&mut heart, now_ms, slots) {
                if let Beat::Ping(slot) = beat {
                    pinged.insert(slot, now_ms);
                    assert!(heart.pinged_just_now(slot, now_ms));
                }
            }
            for (slot, at) in &pinged {
                if now_ms > at + LATE_MS {
                    assert!(!heart.pinged_just_now(*slot, now_ms), "slot {slot}");
                }
            }
            now_ms += 50;
        }
        assert_eq!(pinged.len(), slots as usize);
    }

    #[test]
    fn few_connections_cost_few_wakes_and_none_cost_none() {
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        assert_eq!(heart.next_deadline(0), None);
        assert!(beats(&mut heart, 5, 0).is_empty());
        assert_eq!(heart.next_deadline(0), None);

        let (said, calls) = run(&mut heart, 1_000, 1_000 + 4 * INTERVAL, 10);
        assert!(said.len() >= 70);
        assert!(
            calls <= 10,
            "{calls} calls for ten connections in four intervals"
        );

        // A full table costs no more than 20 wakes a second, once it has settled.
        run(
            &mut heart,
            1_000 + 4 * INTERVAL,
            1_000 + 6 * INTERVAL,
            20_000,
        );
        let (_, calls) = run(
            &mut heart,
            1_001 + 6 * INTERVAL,
            1_000 + 7 * INTERVAL,
            20_000,
        );
        assert!(calls <= 25 * 20 + 2, "{calls} calls in 25 s");
    }

    #[test]
    fn a_call_between_deadlines_names_nobody() {
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        beats(&mut heart, 1_000, 5_000);
        for now_ms in 1_000..60_000 {
            let due = heart.next_deadline(5_000).expect("there are slots") <= now_ms;
            let said = beats(&mut heart, now_ms, 5_000);
            assert_eq!(said.is_empty(), !due, "at {now_ms}");
        }
    }

    #[test]
    fn the_first_connection_after_a_pause_is_not_taken_for_late() {
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        run(&mut heart, 0, 10_000, 100);
        beats(&mut heart, 10_001, 0);
        assert_eq!(heart.next_deadline(1), Some(0));
        assert!(beats(&mut heart, 90_000_000, 1).is_empty());
        assert!(heart.next_deadline(1).expect("there is one") <= 90_000_000 + INTERVAL);
    }

    #[test]
    fn a_long_stall_is_made_up_for_once_and_nobody_is_blamed() {
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        run(&mut heart, 0, 40_000, 2_000);
        let after = 40_000 + 10 * INTERVAL;
        let (said, _) = run(&mut heart, after, after + TIMEOUT - 1, 2_000);
        let mut pings = vec![0; 2_000];
        for (_, beat) in said {
            match beat {
                Beat::Ping(slot) => pings[slot as usize] += 1,
                Beat::Pong(slot) => {
                    panic!("slot {slot} is asked for a pong that we had no time to read")
                }
            }
        }
        // Once for the lap missed, and again for those whose turn it is in these eight seconds.
        assert!(pings.iter().all(|&count| count == 1 || count == 2));
    }

    #[test]
    fn our_own_lateness_is_not_held_against_the_peers() {
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        run(&mut heart, 0, 30_000, 20_000);
        let late = beats(&mut heart, 33_000, 20_000);
        assert!(!late.iter().any(|beat| matches!(beat, Beat::Pong(_))));
        let (said, _) = run(&mut heart, 33_000, 45_000, 20_000);
        let first = said
            .iter()
            .find(|(_, beat)| matches!(beat, Beat::Pong(_)))
            .expect("pongs are asked for again");
        assert!((35_900..36_500).contains(&first.0), "at {}", first.0);
    }

    #[test]
    fn a_call_keeps_to_its_budget_and_asks_to_come_again() {
        let slots = 50_000;
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT);
        beats(&mut heart, 1_000, slots);
        // 19 steps late, of 7 groups each.
        let said = beats(&mut heart, 1_950, slots);
        assert_eq!(said.len(), budget(slots) as usize);
        assert!(heart.next_deadline(slots).expect("there are slots") <= 1_950);
        let mut named = said.len();
        while heart.next_deadline(slots).expect("there are slots") <= 1_950 {
            named += beats(&mut heart, 1_950, slots).len();
        }
        assert_eq!(named, 19 * 7 * GROUP as usize);

        // Later than a second: what is older than that comes before the budget.
        let late = beats(&mut heart, 11_950, slots);
        assert!(late.len() >= 9 * 20 * 6 * GROUP as usize);
        assert!(heart.next_deadline(slots).expect("there are slots") >= 10_950);
    }

    #[test]
    fn zero_means_never() {
        let mut heart = Heartbeat::new(0, 0);
        assert!(beats(&mut heart, 1_000_000, 10).is_empty());
        assert_eq!(heart.next_deadline(10), None);

        let mut heart = Heartbeat::new(INTERVAL, 0);
        let (said, _) = run(&mut heart, 0, 2 * INTERVAL, 100);
        assert!(said.iter().all(|(_, beat)| matches!(beat, Beat::Ping(_))));
        assert_eq!(said.len(), 200);
    }

    /// Connections come and go at random in a table that grows and shrinks, and calls come early, in time or late, up to
    /// the second that is allowed. Whatever happens, nobody waits longer than the interval and 2 s for a ping.
    #[test]
    fn nobody_waits_longer_than_the_interval_and_two_seconds() {
        for seed in 0..60 {
            let mut rng = StdRng::seed_from_u64(seed);
            let interval = [1_000, 3_333, 25_000, 60_000][rng.random_range(0..4)];
            let timeout = rng.random_range(1..interval);
            let table = rng.random_range(1..3_000);
            let most_late = [5, 200, 1_000][rng.random_range(0..3)];
            let exact = rng.random_bool(0.5);
            let mut heart = Heartbeat::new(interval, timeout);
            // By slot: since when a connection waits for a ping; its last ping; and since when a pong is to be looked for.
            let mut open: HashMap<u32, u64> = HashMap::new();
            let mut pinged: HashMap<u32, u64> = HashMap::new();
            let mut awaited: HashMap<u32, u64> = HashMap::new();
            let mut slots = 0;
            let mut now = rng.random_range(1..100_000);
            let end = now + 6 * interval;
            let mut crowded = true;
            while now < end {
                if rng.random_bool(0.01) {
                    crowded = !crowded;
                }
                for _ in 0..rng.random_range(0..30) {
                    let slot = rng.random_range(0..table);
                    if rng.random_bool(if crowded { 0.8 } else { 0.2 }) {
                        open.entry(slot).or_insert(now);
                    } else {
                        open.remove(&slot);
                        awaited.remove(&slot);
                    }
                }
                let largest = open.keys().max().map_or(0, |slot| slot + 1);
                slots = if open.is_empty() || exact {
                    largest
                } else {
                    max(slots, largest)
                };

                let early = rng.random_bool(0.3);
                now = match heart.next_deadline(slots) {
                    Some(due) if early => max(now, due.saturating_sub(rng.random_range(0..100))),
                    Some(due) => max(now, due) + rng.random_range(0..=most_late),
                    None => now + rng.random_range(0..1_000),
                };
                heart.advance(now, slots, |beat| match beat {
                    Beat::Ping(slot) => {
                        assert!(slot < slots);
                        pinged.insert(slot, now);
                        if let Some(since) = open.get_mut(&slot) {
                            *since = now;
                            awaited.insert(slot, now);
                        }
                    }
                    Beat::Pong(slot) => {
                        assert!(slot < slots);
                        awaited.remove(&slot);
                        let since = now - pinged.get(&slot).copied().unwrap_or(0);
                        assert!(
                            since >= timeout,
                            "seed {seed}: a pong is asked for after {since} ms"
                        );
                    }
                });
                for (slot, since) in &open {
                    let waited = now - since;
                    assert!(
                        waited <= interval + 2_000,
                        "seed {seed}: slot {slot} waited {waited} ms"
                    );
                }
                if most_late < LATE_MS && timeout < interval / 2 {
                    for since in awaited.values() {
                        let waited = now - since;
                        assert!(
                            waited <= timeout + 2_000,
                            "seed {seed}: no pong looked for in {waited} ms"
                        );
                    }
                }
            }
        }
    }
}
