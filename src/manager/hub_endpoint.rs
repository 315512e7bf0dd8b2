//! `hub_endpoint`: where a daemon answers programs that ask the Hub.
//!
//! Invariant: the token is told to those alone who may send commands. It is in no status and in no log.

use serde::{Deserialize, Serialize};

use super::daemon::HubEndpoint;
use super::error::ManagerError;
use super::manager::{Command, Manager};
use super::progress::ProgressSink;

/// Asks for the address and the token.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetHubEndpoint {}

/// Where a daemon answers programs that ask the Hub.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HubEndpointAnswer {
    /// None: it does not.
    pub endpoint: Option<HubEndpoint>,
}

impl Command for GetHubEndpoint {
    type Answer = HubEndpointAnswer;

    async fn run(
        self,
        manager: Manager,
        _: ProgressSink,
    ) -> Result<HubEndpointAnswer, ManagerError> {
        Ok(HubEndpointAnswer {
            endpoint: manager.daemon().and_then(|daemon| daemon.hub_endpoint()),
        })
    }
}
