//! A message that the remote answers by closing the connection: found by sending it alone.
//!
//! ```text
//! closed with messages in flight --> the oldest is suspected; over the next connection:
//!   Asked -- PINGRESP: what came before is not the reason --> Quiet -- nothing happens, for longer than it took to close -->
//!   Clear -- sent --> Alone -- closed: once more
//!                           -- acknowledged: innocent
//! ```
//! Messages that must go before the suspected message are sent alone, too.
//!
//! After the first closing only closings while the message was alone in flight count. So a message is never blamed for its
//! neighbour, for a message at QoS 0 or for a subscription. A remote that closes before the message is sent clears the
//! message. So a remote that closes each connection after a while has no message set aside. After each closing the window
//! opens slowly again: a connection may end with lost acknowledgements, and a small window brings the next suspect nearer to
//! the message that is the reason.
//!
//! A remote that closes over every message is more probably broken than every message is bad. So each further message needs
//! twice as many closings while the remote acknowledges no message in between.
//!
//! A closing that takes ten seconds or more clears the message. Reasons that a remote gives for itself do not count.

use crate::time::Instant;

/// The longest wait for PINGRESP: a remote that has not closed by then has taken all earlier packets.
const ASK_MS: u64 = 2_000;

/// The longest time in which messages are sent alone: the suspected message may be gone, and a remote need not answer.
const PROBE_MS: u64 = 30_000;

/// The longest time in which nothing is sent before the suspected message.
const QUIET_MS_MAX: u64 = 10_000;

/// The number of closings is doubled this often at most.
const DOUBLINGS_MAX: u32 = 6;

#[derive(Debug)]
pub(super) struct Suspicion {
    /// 0: no message is ever suspected.
    closings_max: u32,
    suspect: Option<Suspect>,
    probe: Probe,
    /// The bound on messages in flight while the window opens again.
    window: Option<u16>,
    /// The number of messages that were set aside since the last acknowledgement.
    aside_count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    sequence: u64,
    /// The number of closings in a row.
    closings: u32,
    /// The wait before the message is sent.
    quiet_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    None,
    /// PINGREQ was sent, and no other packet will be sent.
    Asked {
        until: Instant,
    },
    /// No packet is sent: perhaps the remote closes nevertheless.
    Quiet {
        until: Instant,
    },
    /// No message is in flight, and one message may be sent.
    Clear {
        until: Instant,
    },
    /// One message is in flight.
    Alone {
        sequence: u64,
        since: Instant,
        until: Instant,
    },
}

impl Suspicion {
    pub(super) fn new(closings_max: u32) -> Suspicion {
        Suspicion { closings_max, suspect: None, probe: Probe::None, window: None, aside_count: 0 }
    }

    /// The remote has closed. `oldest` is the oldest of the `count` messages in flight that the remote has not acknowledged.
    /// Returns the number of closings if the oldest message is to be set aside.
    pub(super) fn closed(
        &mut self,
        now: Instant,
        oldest: Option<u64>,
        count: usize,
    ) -> Option<u32> {
        let probe = std::mem::replace(&mut self.probe, Probe::None);
        let Some(sequence) = oldest.filter(|_| self.closings_max > 0) else {
            // The remote closes without the message, too.
            self.suspect = None;
            return None;
        };
        self.window = Some(1);
        let alone_ms = match probe {
            Probe::Alone { sequence: one, since, .. } if one == sequence && count == 1 => {
                Some(now.ms_since(since))
            }
            _ => None,
        };
        if alone_ms.is_some_and(|took| took >= QUIET_MS_MAX) {
            // No pause would tell such a closing from a closing for another reason.
            self.suspect = None;
            return None;
        }
        let known = self.suspect.filter(|known| known.sequence == sequence && alone_ms.is_some());
        let closings = known.map_or(1, |known| known.closings.saturating_add(1));
        let quiet_before_ms = known.map_or(0, |known| known.quiet_ms);
        // The wait is twice as long, as one closing may come a little later than the other.
        let quiet_ms = alone_ms.map_or(0, |took| quiet_before_ms.max(2 * took).min(QUIET_MS_MAX));
        self.suspect = Some(Suspect { sequence, closings, quiet_ms });
        // Before the message was sent, the remote had stayed open for longer than this closing took.
        let is_meant = alone_ms.is_some_and(|took| took <= quiet_before_ms);
        (is_meant && closings >= self.closings_needed()).then_some(closings)
    }

    fn closings_needed(&self) -> u32 {
        self.closings_max.saturating_mul(1 << self.aside_count.min(DOUBLINGS_MAX))
    }

    /// The connection was lost for another reason.
    pub(super) fn lost(&mut self) {
        self.probe = Probe::None;
    }

    /// A connection is up. Returns whether to send PINGREQ.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let asks = self.suspect.is_some();
        if asks {
            self.probe = Probe::Asked { until: now.plus_ms(ASK_MS) };
        }
        asks
    }

    /// PINGRESP came.
    pub(super) fn answered(&mut self, now: Instant) {
        if matches!(self.probe, Probe::Asked { .. }) {
            let quiet_ms = self.suspect.map_or(0, |suspect| suspect.quiet_ms);
            self.probe = match quiet_ms {
                0 => Probe::Clear { until: now.plus_ms(PROBE_MS) },
                _ => Probe::Quiet { until: now.plus_ms(quiet_ms) },
            };
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.probe {
            Probe::Asked { until }
            | Probe::Quiet { until }
            | Probe::Clear { until }
            | Probe::Alone { until, .. } => Some(until),
            Probe::None => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        match self.probe {
            Probe::Asked { .. } => self.answered(now),
            Probe::Quiet { .. } => self.probe = Probe::Clear { until: now.plus_ms(PROBE_MS) },
            Probe::Clear { .. } | Probe::Alone { .. } | Probe::None => {
                self.suspect = None;
                self.probe = Probe::None;
            }
        }
    }

    /// The number of messages that may be in flight.
    pub(super) fn quota(&self, quota: u16) -> u16 {
        match self.probe {
            Probe::Asked { .. } | Probe::Quiet { .. } | Probe::Alone { .. } => 0,
            Probe::Clear { .. } => quota.min(1),
            Probe::None => self.window.map_or(quota, |window| window.min(quota)),
        }
    }

    /// Whether a message may be sent now; `is_tracked`: the remote answers it.
    pub(super) fn lets(&self, is_tracked: bool) -> bool {
        match self.probe {
            Probe::None => true,
            Probe::Clear { .. } => is_tracked,
            Probe::Asked { .. } | Probe::Quiet { .. } | Probe::Alone { .. } => false,
        }
    }

    /// A message that the remote answers was sent.
    pub(super) fn sent(&mut self, now: Instant, sequence: u64) {
        if let Probe::Clear { until } = self.probe {
            self.probe = Probe::Alone { sequence, since: now, until };
        }
    }

    /// The remote has answered a message, so the remote works. The caller calls `finished` first.
    pub(super) fn acknowledged(&mut self) {
        self.aside_count = 0;
    }

    /// A message is over: answered, set aside, or gone.
    pub(super) fn finished(&mut self, sequence: u64, quota: u16) {
        if let Some(suspect) = self.suspect.filter(|one| one.sequence == sequence) {
            if suspect.closings >= self.closings_needed() {
                self.aside_count = self.aside_count.saturating_add(1);
            }
            self.suspect = None;
            self.probe = Probe::None;
        }
        if let Probe::Alone { sequence: alone, until, .. } = self.probe
            && alone == sequence
        {
            self.probe = Probe::Clear { until };
        }
        // The window grows by one for each answer, so it doubles in each round trip.
        self.window = self.window.map(|window| window + 1).filter(|window| *window < quota);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A remote that closes when it gets a message of `poison`, and whose last `lost` acknowledgements are lost with a connection.
    /// Returns the messages that were set aside, and the number of all closings.
    fn run(poison: &[u64], count: u64, quota: u16, lost: usize) -> (Vec<u64>, u32) {
        let mut suspicion = Suspicion::new(5);
        let mut waiting: Vec<u64> = (1..=count).collect();
        let (mut aside, mut closings) = (Vec::new(), 0);
        let mut now = Instant(1);
        while !waiting.is_empty() {
            assert!(closings < 1000, "no end");
            if suspicion.begin(now) {
                assert_eq!(suspicion.quota(quota), 0);
                suspicion.answered(now);
                if suspicion.quota(quota) == 0 {
                    now = suspicion.due().unwrap();
                    suspicion.handle_timeout(now);
                }
            }
            loop {
                let room = usize::from(suspicion.quota(quota));
                let flight: Vec<u64> = waiting.iter().copied().take(room).collect();
                if flight.is_empty() {
                    break;
                }
                for one in &flight {
                    assert!(suspicion.lets(true));
                    suspicion.sent(now, *one);
                }
                let hit = flight.iter().position(|one| poison.contains(one));
                let acked = hit.map_or(flight.len(), |hit| hit.saturating_sub(lost));
                for one in &flight[..acked] {
                    suspicion.finished(*one, quota);
                    suspicion.acknowledged();
                    waiting.retain(|other| other != one);
                }
                if hit.is_some() {
                    closings += 1;
                    now = now.plus_ms(7);
                    let open = &flight[acked..];
                    if suspicion.closed(now, open.first().copied(), open.len()).is_some() {
                        aside.push(open[0]);
                        suspicion.finished(open[0], quota);
                        waiting.retain(|other| *other != open[0]);
                    }
                    break;
                }
            }
        }
        (aside, closings)
    }

    #[test]
    fn the_message_that_is_meant_is_found_and_no_other() {
        for (poison, count, quota, lost, closings_max) in [
            (&[1][..], 1, 1024, 0, 5),
            (&[1], 3000, 1024, 0, 5),
            (&[700], 3000, 1024, 0, 6),
            (&[700, 701, 2000], 3000, 1024, 0, 23),
            (&[700], 3000, 1024, usize::MAX, 30),
            (&[700, 702], 3000, 1024, 400, 60),
            (&[3], 10, 1, 0, 5),
        ] {
            let (aside, closings) = run(poison, count, quota, lost);
            assert_eq!(aside, poison);
            assert!(closings <= closings_max, "{poison:?}: {closings}");
        }
    }

    #[test]
    fn a_remote_that_closes_without_the_message_clears_it() {
        let now = Instant(1);
        let mut suspicion = Suspicion::new(2);
        for _ in 0..10 {
            assert_eq!(suspicion.closed(now, Some(7), 3), None, "it was not alone");
            assert!(suspicion.begin(now));
            assert_eq!(suspicion.closed(now, None, 0), None, "it was not sent");
            assert!(!suspicion.begin(now));
        }
        // A connection that is lost for another reason neither blames nor clears the message.
        suspicion.closed(now, Some(7), 3);
        suspicion.begin(now);
        suspicion.answered(now);
        suspicion.sent(now, 7);
        suspicion.lost();
        assert!(suspicion.begin(now));
        suspicion.answered(now);
        // An earlier message goes alone, too, and no message that the remote does not answer is sent.
        assert!(suspicion.lets(true) && !suspicion.lets(false));
        suspicion.sent(now, 6);
        assert!(!suspicion.lets(true));
        suspicion.finished(6, 9);
        suspicion.sent(now, 7);
        assert_eq!(suspicion.closed(now, Some(7), 1), Some(2));
        // The remote answers no ping. Then nothing happens at all, or its message never came: it was dropped, or
        // expired.
        for is_sent in [true, false] {
            suspicion.closed(now, Some(8), 1);
            suspicion.begin(now);
            assert!(!suspicion.lets(true));
            suspicion.handle_timeout(suspicion.due().unwrap());
            assert!(suspicion.lets(true) && !suspicion.lets(false));
            if is_sent {
                suspicion.sent(now, 8);
            }
            suspicion.handle_timeout(suspicion.due().unwrap());
            assert!(suspicion.lets(false) && suspicion.due().is_none());
            suspicion.lost();
        }
    }

    #[test]
    fn a_remote_that_closes_over_everything_costs_ever_fewer_messages() {
        let mut suspicion = Suspicion::new(5);
        let now = Instant(1);
        let mut closings = Vec::new();
        for sequence in 1..=9 {
            closings.push(0);
            loop {
                *closings.last_mut().unwrap() += 1;
                if suspicion.begin(now) {
                    suspicion.answered(now);
                }
                suspicion.sent(now, sequence);
                if suspicion.closed(now, Some(sequence), 1).is_some() {
                    break suspicion.finished(sequence, 9);
                }
            }
        }
        assert_eq!(closings, [5, 10, 20, 40, 80, 160, 320, 320, 320]);
        // The remote works again.
        suspicion.acknowledged();
        assert_eq!(suspicion.closings_needed(), 5);
    }

    #[test]
    fn a_remote_that_closes_after_a_while_whatever_is_sent_is_nobodys_fault() {
        for (answers, lives_ms) in [true, false].into_iter().flat_map(|answers| {
            [300, 1_000, 5_000, 9_000, 11_000, 12_000, 15_000, 25_000].map(|ms| (answers, ms))
        }) {
            let mut suspicion = Suspicion::new(3);
            let mut now = Instant(1);
            let mut sent_count = 0;
            for _ in 0..100 {
                let ends = now.plus_ms(lives_ms);
                let mut at = now;
                if suspicion.begin(now) && answers {
                    at = now.plus_ms(1);
                    suspicion.answered(at);
                }
                while !suspicion.lets(true)
                    && let Some(due) = suspicion.due().filter(|due| *due < ends)
                {
                    at = due;
                    suspicion.handle_timeout(due);
                }
                let is_sent = suspicion.lets(true);
                sent_count += u32::from(is_sent);
                if is_sent {
                    suspicion.sent(at, 7);
                }
                let oldest = is_sent.then_some(7);
                let aside = suspicion.closed(ends, oldest, usize::from(is_sent));
                assert_eq!(aside, None, "{answers} {lives_ms}");
                now = ends.plus_ms(1_000);
            }
            assert!(
                sent_count >= 50,
                "{lives_ms}: one that is well would have got it: {sent_count}"
            );
        }
    }

    #[test]
    fn with_0_nobody_is_suspected() {
        let mut suspicion = Suspicion::new(0);
        assert_eq!(suspicion.closed(Instant(1), Some(7), 1), None);
        assert!(!suspicion.begin(Instant(1)));
        assert_eq!(suspicion.quota(9), 9);
    }
}
