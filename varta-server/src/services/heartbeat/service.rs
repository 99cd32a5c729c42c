//! Prepares what sends heartbeats, and starts a task for each destination.

use crate::base::error::Error;
use crate::services::context::Context;
use crate::services::heartbeat::device_target::DeviceTarget;
use crate::services::heartbeat::metrics::Outcomes;
use crate::services::heartbeat::options::HeartbeatOptions;
use crate::services::heartbeat::peer_target::PeerTarget;
use crate::services::heartbeat::url_target::UrlTarget;

/// The capability before it runs. Without a destination it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    url: Option<UrlTarget>,
    peer: Option<PeerTarget>,
    device: Option<DeviceTarget>,
}

impl Heartbeat {
    /// Builds the client of the URL, looks up the other server, and opens the watchdog. `host` is the name of this
    /// host.
    ///
    /// # Errors
    ///
    /// A file of certificates, a host or a device that cannot be used.
    pub(crate) fn open(options: HeartbeatOptions, host: &str) -> Result<Self, Error> {
        let HeartbeatOptions { url, peer, device } = options;
        Ok(Heartbeat {
            url: url.map(UrlTarget::open).transpose()?,
            peer: peer.map(|peer| PeerTarget::open(peer, host)).transpose()?,
            device: device.as_ref().map(DeviceTarget::open).transpose()?,
        })
    }

    /// Starts a task for each destination, so that none waits for another. They are the last to end, because
    /// only then it is known whether the server ends because of an error.
    pub(crate) fn start(self, context: &mut Context) {
        let Heartbeat { url, peer, device } = self;
        let outcomes = ["url", "server", "device"].map(|kind| Outcomes::new(&context.registry, kind));
        let [of_url, of_peer, of_device] = outcomes;
        if let Some(url) = url {
            let task = url.run(context, of_url);
            context.spawn_last("heartbeat to a URL", task);
        }
        if let Some(peer) = peer {
            let task = peer.run(context, of_peer);
            context.spawn_last("beat to another server", task);
        }
        if let Some(device) = device {
            let task = device.run(context, of_device);
            context.spawn_last("hardware watchdog", task);
        }
    }
}
