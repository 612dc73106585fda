//! What the commands `peers` (stores on a disk) and `memory` (caches) share: the workload, the machine, the figures of
//! repeats, text and plots; and the questions of `peers`.

pub mod batch;
pub mod engines;
pub mod goals;
pub mod limits;
pub mod machine;
pub mod measure;
pub mod plot;
pub mod reopen;
pub mod report;
pub mod samples;
pub mod synced;
pub mod workload;
