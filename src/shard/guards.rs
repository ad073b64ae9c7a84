//! Protections against clients that connect too often or too fast; each is off unless configured.

use super::flapping::Flapping;
use super::lag::Lag;
use super::rates::Rates;
use crate::hash::KeyedHash;
use crate::limits::Limits;

pub(super) struct Guards {
    pub rates: Rates,
    pub flapping: Flapping,
    pub lag: Lag,
}

impl Guards {
    pub(super) fn new(limits: &Limits, hash: &KeyedHash) -> Guards {
        Guards {
            rates: Rates::new(limits, hash),
            flapping: Flapping::new(hash),
            lag: Lag::default(),
        }
    }
}
