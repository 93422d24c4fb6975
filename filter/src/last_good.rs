//! The last valid configuration of a filter, in Envoy's shared data.
//!
//! The filter takes whatever configuration Envoy delivers. If it refused one, Envoy would refuse every
//! later change of the listeners that have the filter, and with them the changes of other services: filter
//! discovery keeps the last delivered configuration, refused or not, and applies it to each new version of
//! a listener. So a configuration that is not valid changes nothing, and the last valid one stays in force.
//!
//! ```text
//!   delivered ─► valid? ─ yes ─► in force, and stored in "nixgate/configuration/<plugin's name>"
//!                  └───── no ──► the stored one stays in force; without one, requests get 500 with
//!                                the reason
//! ```
//!
//! Shared data outlives a VM that died, and is there for the VMs of new workers and listeners. It ends with
//! the process. Plugins without a name store nothing: two of them could take each other's.

use nixgate_core::cache::Seal;
use nixgate_core::config::Config;

use crate::active_config::parse;
use crate::host;

/// Stores a configuration.
pub(crate) fn store(plugin: &str, json: &[u8], config: &Config) -> host::Result<()> {
    if plugin.is_empty() {
        return Ok(());
    }
    host::set_shared_data(&key(plugin), &config.seal.seal(json.to_vec()), 0)
}

/// The stored configuration. Other plugins can write to shared data, so it counts only with the seal.
pub(crate) fn load(plugin: &str) -> Option<Config> {
    if plugin.is_empty() {
        return None;
    }
    let (sealed, _) = host::shared_data(&key(plugin)).ok()??;
    let config = parse(Seal::unverified(&sealed)?).ok()?;
    config.seal.open(&sealed).is_some().then_some(config)
}

fn key(plugin: &str) -> String {
    format!("nixgate/configuration/{plugin}")
}
