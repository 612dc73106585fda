//! Damaged records met on a walk: they are stepped over, and told at the end, when the rest is done.

use thermocline::{Error, Result};

use crate::outcome::{Failure, count};

/// What a walk could not read.
#[derive(Default)]
pub(crate) struct Damaged {
    first: Option<Error>,
    count: u64,
}

impl Damaged {
    /// Passes a result on, but notes a damaged record and gives nothing in its place.
    pub(crate) fn step_over<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(damage @ Error::Corrupt { .. }) => {
                self.count += 1;
                self.first.get_or_insert(damage);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Fails if there was any.
    pub(crate) fn told(self) -> Result<(), Failure> {
        let Some(first) = self.first else { return Ok(()) };
        let records = count(self.count, "damaged record", "damaged records, the first");
        Err(Failure::Told(format!("stepped over {records}: {first}")))
    }
}
