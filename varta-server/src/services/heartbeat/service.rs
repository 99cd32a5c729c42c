//! Prepares what sends heartbeats, and starts a task for each destination.

use crate::base::error::Error;
use crate::services::context::Context;
use crate::services::heartbeat::metrics::Outcomes;
use crate::services::heartbeat::options::HeartbeatOptions;
use crate::services::heartbeat::url_target::UrlTarget;

/// The capability before it runs. Without a destination it has its metrics and nothing else.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    url: Option<UrlTarget>,
}

impl Heartbeat {
    /// Builds the client of the URL.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used.
    pub(crate) fn open(options: HeartbeatOptions) -> Result<Self, Error> {
        let HeartbeatOptions { url } = options;
        Ok(Heartbeat { url: url.map(UrlTarget::open).transpose()? })
    }

    /// Starts a task for each destination, so that none waits for another. They are the last to end, because
    /// only then it is known whether the server ends because of an error.
    pub(crate) fn start(self, context: &mut Context) {
        let Heartbeat { url } = self;
        let outcomes = Outcomes::new(&context.registry, "url");
        if let Some(url) = url {
            let task = url.run(context, outcomes);
            context.spawn_last("heartbeat to a URL", task);
        }
    }
}
