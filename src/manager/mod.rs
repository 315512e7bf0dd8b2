//! What every command does, for the daemon, the command line and other programs alike.
//!
//! A [`Manager`] holds a store and the registry that feeds it. Each command is a request that implements
//! [`Command`], in a file of its own together with its answer. Requests and answers are plain values with
//! a JSON form; the daemon's control API sends exactly these. [`ManagerError`] says of which kind a
//! failure is and keeps its cause; the program that shows it adds exit codes and advice.
//! Commands import the files that they share (`manager`, `lookup`, `error`, …), never each other.

mod daemon;
mod error;
mod evict;
mod hub_endpoint;
mod info;
mod list;
mod listed;
mod lookup;
#[expect(clippy::module_inception, reason = "it holds the type that gives the layer its name")]
mod manager;
mod path;
mod pin;
mod pin_info;
mod prefetch;
mod progress;
mod reference;
mod refresh;
mod restart;
mod selection;
mod status;
mod suggest;
mod trace;
mod unmount;
mod verify;
mod waiting;

pub use daemon::{Confinement, DaemonControl, DaemonStatus, HubEndpoint};
pub use error::{ErrorKind, ManagerError};
pub use evict::{Evict, Evicted};
pub use hub_endpoint::{GetHubEndpoint, HubEndpointAnswer};
pub use info::{FileInfo, GetInfo, Info};
pub use list::{GetList, List};
pub use listed::ListedVersion;
pub use lookup::Lookup;
pub use manager::{AbsentCache, Command, Manager};
pub use path::{GetPath, MountedPath};
pub use pin::{Pin, Pinned, Unpin, Unpinned};
pub use pin_info::PinInfo;
pub use prefetch::{Prefetch, Prefetched};
pub use progress::{Progress, ProgressSink, no_progress};
pub use reference::Ref;
pub use refresh::{Refresh, Refreshed};
pub use restart::{Restart, Restarting};
pub use status::{CacheStatus, GetStatus, RegistryStatus, Status};
pub use trace::{ForgetTrace, GetTrace, ImportTrace, Trace, TraceForgotten};
pub use unmount::{Unmount, Unmounting};
pub use verify::{DamagedFile, Verified, Verify};
pub use waiting::Waiting;
