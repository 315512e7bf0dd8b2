//! The store: verified bytes of model files on disk, bounded, indexed, shared by all versions.
//!
//! On disk, below one folder of mode 0700:
//! `index.db` (SQLite, WAL) · `blobs/<2 hex>/<content key>` (sparse, one per distinct file) ·
//! `blobs/<2 hex>/<content key>.sums` (what each part hashed to) · `lock` (one writer process) ·
//! `epoch` (which index was used with this folder last).
//! `docs/store-format.md` describes them.
//!
//! From the top: `store` (the face), `blob` (handles), `engine` (what is done), `state` (what is known in
//! memory, no I/O), `index` (SQLite), `disk` (files). Each imports only those after it.
//!
//! Invariants: (1) a part is readable here only after its bytes were verified, and a part that an earlier
//! process verified only while there is evidence that it is still the same (`engine::trust`); (2) the
//! index never claims what is not durable: data is synced before the transaction that marks it, and the
//! mark is gone durably before its bytes are (on a disk so full that not even that can be written, the
//! bytes go first, and the index has no stamp of that blob); (3) `used <= limit` at every instant: space
//! is reserved first.
//!
//! Concurrency: every method may be called from any thread and may block on the disk; none waits
//! for a network. No lock that readers need is held across I/O on blobs.

mod blob;
pub mod disk;
mod engine;
mod error;
mod evidence;
mod index;
mod local_copies;
mod sidecar;
mod state;
#[expect(clippy::module_inception, reason = "the folder's face")]
mod store;
mod types;

pub use blob::{Blob, Hold, LocalCopy};
pub use disk::lock::StoreLock;
pub use disk::{Disk, Faults, FaultyDisk, MemoryDisk, RealDisk};
pub use engine::reserve::Reservation;
pub use engine::unverified::UnverifiedWriter;
pub use error::StoreError;
pub use state::collector::{Formats, NodesInUse};
pub use store::Store;
pub use types::{
    Evicted, Holder, NodeId, NodeKey, Pin, ReadState, SavedCatalog, StoreOptions, Usage, Verified,
    Written,
};
