//! Transfers: each flight's way from the registry, or from another blob, to its readers and into the store.
//!
//! `Transfers` claims flights and runs each as a task: reserve space (`destination`), copy what other blobs
//! hold (`local_copies`), request the rest (`requests`, `lists`), verify, hand over and store (`deliver`).
//! An object that is verified as a whole and too large for memory is fetched into the store first (`whole`).
//! Ranges that a proof verifies come from `proven`; a file of them that is complete is compared with the
//! digest of the whole (`whole_checks`). A flight asks the registry of its own source. Invariant: no byte is handed over or stored before the
//! digest that covers it has matched. Concurrency: one task per flight; hashing and disk on the blocking
//! pool.

mod deliver;
mod destination;
mod gather;
mod lists;
mod local_copies;
mod proven;
mod requests;
mod transfers;
mod whole;
mod whole_checks;

pub use destination::is_learned;
pub use gather::Gather;
pub use transfers::Transfers;
